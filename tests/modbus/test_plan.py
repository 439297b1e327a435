"""The planned reads: each register in exactly one, no limit broken, no quicker way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.metering.profile import Limits
from gateway.metering.register import Encoding, Register
from gateway.modbus.plan import Read, Timing, plan
from gateway.modbus.settings import SerialLink, TcpLink

LINE = Timing.of(SerialLink("/dev/null", 9600), 0.01)


def register(address: int, words: int = 2, function: int = 3) -> Register:
    encoding = Encoding("string", words=words)
    return Register(f"r{function}_{address}_{words}", function, address, encoding, Decimal(1))


def disjoint(function: int = 3, most: int = 5) -> st.SearchStrategy[list[Register]]:
    """Registers one after the other, with gaps."""

    def build(parts: list[tuple[int, int]]) -> list[Register]:
        found, at = [], 0
        for gap, words in parts:
            at += gap
            found.append(register(at, words, function))
            at += words
        return found

    return st.lists(st.tuples(st.integers(0, 20), st.integers(1, 4)), max_size=most).map(build)


def overlapping(function: int, most: int = 4) -> st.SearchStrategy[list[Register]]:
    """Registers wherever they are; some hold others."""
    where = st.tuples(st.integers(0, 30), st.integers(1, 12))
    return st.lists(where, max_size=most, unique=True).map(
        lambda found: [register(at, words, function) for at, words in found]
    )


def blocks(function: int) -> st.SearchStrategy[tuple[tuple[int, int, int], ...]]:
    """What is only given whole."""
    one = st.tuples(st.just(function), st.integers(0, 40), st.integers(2, 12))
    return st.lists(one, max_size=1).map(tuple)


limits = st.builds(
    Limits,
    max_registers=st.integers(4, 30),
    holes=st.booleans(),
    hole_ranges=st.lists(
        st.tuples(st.integers(0, 60), st.integers(0, 40)).map(lambda p: (p[0], p[0] + p[1])),
        max_size=2,
    ).map(tuple),
    even=st.booleans(),
    single=st.booleans(),
    splits=st.lists(st.tuples(st.just(3), st.integers(0, 80)), max_size=2).map(tuple),
)
addresses = st.lists(st.tuples(st.just(3), st.integers(0, 80)), max_size=3)


def legal(
    part: Sequence[Register],
    limit: Limits,
    named: Sequence[Register],
    refused: Sequence[tuple[int, int]],
    cuts: Sequence[tuple[int, int]],
    most: int | None = None,
) -> Read | None:
    """The read for these registers as the rules say it, one address at a time."""
    function = part[0].function
    start, end = min(r.address for r in part), max(r.end for r in part)
    first, after = start, end
    if limit.even:
        first, after = start - start % 2, end + (end - start + start % 2) % 2
    read = Read(function, first, after - first)
    if len(part) == 1:
        return read
    if most is None:
        most = limit.max_registers if function > 2 else 2000
    if limit.single or read.count > most:
        return None
    known = {
        a
        for r in named
        if r.function == function and (function, r.address) not in refused
        for a in range(r.address, r.end)
    } | {a for r in part for a in range(r.address, r.end)}
    for address in range(start, end):
        inside = any(r.address <= address < r.end for r in part)
        ranges = any(low <= address <= high for low, high in limit.hole_ranges)
        if not inside and (
            (function, address) in refused or not (limit.holes or ranges or address in known)
        ):
            return None
    starts = [r.address for r in part]
    every = (*cuts, *limit.splits)
    if any(f == function and min(starts) < cut <= max(starts) for f, cut in every):
        return None
    return read


def partitions(registers: Sequence[Register]) -> Iterator[list[list[Register]]]:
    """Every way to put registers into groups."""
    if not registers:
        yield []
        return
    first, *rest = registers
    for others in partitions(rest):
        yield [[first], *others]
        for at, group in enumerate(others):
            yield [*others[:at], [first, *group], *others[at + 1 :]]


@settings(max_examples=120, deadline=None, derandomize=True)
@given(disjoint(), limits, disjoint(most=3), addresses, addresses, st.floats(0, 0.05))
def test_no_other_way_takes_less_time(registers, limit, others, refused, cuts, turnaround):
    refused = [at for at in refused if at not in {(3, r.address) for r in registers}]
    timing = Timing.of(SerialLink("/dev/null", 19200, "even"), turnaround)
    known = [*registers, *others]
    found = plan(registers, limit, timing, known=known, refused=refused, cuts=cuts)
    least = min(
        timing.of_all(reads)
        for groups in partitions(registers)
        if None not in (reads := [legal(g, limit, known, refused, cuts) for g in groups])
    )
    assert timing.of_all(found) <= least + 1e-12
    for one in registers:
        assert sum(read.holds(one) for read in found) >= 1


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data(), st.sampled_from([1, 3]), limits, st.floats(0, 0.05), st.booleans())
def test_nor_where_registers_overlap_or_are_bits_or_come_in_whole_blocks_or_a_length_was_learnt(
    data, function, limit, turnaround, learnt
):
    registers = data.draw(overlapping(function))
    limit = evolve(limit, whole_blocks=data.draw(blocks(function)))
    most = limit.max_registers if function > 2 else 2000
    longest = data.draw(st.integers(1, most)) if learnt else most
    timing = Timing.of(SerialLink("/dev/null", 9600), turnaround)
    found = plan(registers, limit, timing, longest={function: longest} if learnt else {})
    whole = [Read(*block) for block in limit.whole_blocks]
    inside = [r for r in registers if any(block.holds(r) for block in whole)]
    others = [r for r in registers if r not in inside]
    least = min(
        timing.of_all(set(reads))
        for groups in partitions(others)
        if None not in (reads := [legal(g, limit, registers, [], [], longest) for g in groups])
    ) + timing.of_all(whole if inside else [])
    assert timing.of_all(found) <= least + 1e-12
    assert all(any(read.holds(one) for read in found) for one in registers)
    for block in whole if inside else []:
        assert block in found


@settings(max_examples=100, deadline=None, derandomize=True)
@given(disjoint(3, 20), disjoint(4, 20), limits, st.integers(2, 20))
def test_every_register_is_in_exactly_one_read_and_no_limit_is_broken(three, four, limit, longest):
    registers = [*three, *four]
    reads = plan(reversed(registers), limit, LINE, longest={3: longest, 4: longest})
    for one in registers:
        # Rounding to even numbers may make reads overlap; it never splits a register.
        holding = [read for read in reads if read.holds(one)]
        assert len(holding) == 1 or (limit.even and holding)
    for read in reads:
        inside = [r for r in registers if read.holds(r)]
        assert inside, "no read without a register"
        # One register may be wider than the limit; rounding may take in a neighbour.
        alone = any(r.count + 2 * limit.even >= read.count for r in inside)
        assert alone or read.count <= min(limit.max_registers, longest)
        if limit.even:
            assert read.address % 2 == 0
            assert read.count % 2 == 0
        if limit.single and not limit.even:
            assert len(inside) == 1


def test_addresses_that_the_profile_does_not_name_are_not_passed_over():
    one, other = register(0), register(4)
    assert plan([one, other], Limits(), LINE) == (Read(3, 0, 2), Read(3, 4, 2))
    assert plan([one, other], Limits(), LINE, known=[register(2)]) == (Read(3, 0, 6),)
    assert plan([one, other], Limits(holes=True), LINE) == (Read(3, 0, 6),)
    assert plan([one, other], Limits(hole_ranges=((2, 3),)), LINE) == (Read(3, 0, 6),)
    assert len(plan([one, other], Limits(hole_ranges=((2, 2),)), LINE)) == 2


def test_a_refused_register_is_not_passed_over():
    one, other = register(0), register(4)
    known = [register(2)]
    assert len(plan([one, other], Limits(holes=True), LINE, known=known, refused=[(3, 2)])) == 2
    assert len(plan([one, other], Limits(), LINE, known=known, refused=[(3, 2)])) == 2
    assert len(plan([one, other], Limits(), LINE, known=known, refused=[(4, 2)])) == 1


def test_a_cut_is_not_reached_across():
    two = [register(0), register(2)]
    assert plan(two, Limits(), LINE, cuts=[(3, 2)]) == (Read(3, 0, 2), Read(3, 2, 2))
    assert plan(two, Limits(), LINE, cuts=[(4, 2), (3, 0), (3, 3)]) == (Read(3, 0, 4),)


def test_a_gap_is_read_where_that_is_quicker_than_another_request():
    # 9600 8N1 and 10 ms: a request costs 13 characters, two silences and the turnaround, which
    # is as much as 14.7 registers.
    def joined(gap: int) -> bool:
        return len(plan([register(0), register(2 + gap)], Limits(holes=True), LINE)) == 1

    assert joined(14)
    assert not joined(15)


def test_a_block_that_is_only_given_whole_is_asked_for_whole_and_once():
    limit = Limits(whole_blocks=((3, 64001, 27),))
    inside = [register(64001), register(64020, 4)]
    reads = plan([*inside, register(63999), register(64028)], limit, LINE)
    assert reads == (Read(3, 63999, 2), Read(3, 64001, 27), Read(3, 64028, 2))
    assert len(plan([evolve(inside[0], function=4)], limit, LINE)) == 1


def test_a_register_wider_than_the_limit_is_asked_for_alone():
    reads = plan([register(0, 8), register(8, 2)], Limits(max_registers=4), LINE)
    assert reads == (Read(3, 0, 8), Read(3, 8, 2))


def test_registers_that_overlap_share_a_read():
    assert plan([register(0, 4), register(1, 1)], Limits(), LINE) == (Read(3, 0, 4),)


def test_bits_are_asked_for_by_the_thousand():
    bits = [register(at, 1, 1) for at in range(0, 2100, 100)]
    reads = plan(bits, Limits(max_registers=10, holes=True), LINE)
    assert len(reads) == 2
    assert max(read.count for read in reads) <= 2000
    assert LINE.of_read(Read(1, 0, 2000)) == LINE.of_read(Read(3, 0, 125))
    eight = LINE.of_read(Read(1, 0, 8)) - LINE.request
    assert eight == pytest.approx(LINE.register / 2)


def test_of_functions_each_has_its_own_reads():
    reads = plan([register(0, 2, 4), register(0, 2, 3)], Limits(), LINE)
    assert reads == (Read(3, 0, 2), Read(4, 0, 2))


def test_a_long_profile_is_planned_at_once():
    registers = [register(at * 3) for at in range(400)]
    assert len(plan(registers, Limits(holes=True), LINE)) == 10


def test_the_arithmetic_of_a_line():
    # 60 registers at 9600 8N1, turnaround 10 ms: 133 characters, twice 3.5 characters of silence.
    assert abs(LINE.of_read(Read(3, 0, 60)) - (133 / 960 + 2 * 3.5 / 960 + 0.01)) < 1e-9
    fast = Timing.of(SerialLink("/dev/null", 115200), 0.01)
    assert abs(fast.of_read(Read(3, 0, 60)) - (1330 / 115200 + 2 * 0.00175 + 0.01)) < 1e-9
    text = Timing.of(SerialLink("/dev/null", 9600, "even", framing="ascii"), 0.01)
    assert abs(text.of_read(Read(3, 0, 1)) - ((17 + 15) / 960 + 2 * 3.5 / 960 + 0.01)) < 1e-9
    slow = Timing.of(SerialLink("/dev/null", 9600), 0.01, pause=100)
    assert abs(slow.request - LINE.request - (0.1 - 3.5 / 960)) < 1e-9
    assert abs(Timing.of(TcpLink("meter"), 0.005).of_read(Read(3, 0, 100)) - 0.0051) < 1e-9
