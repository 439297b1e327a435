"""Every shipped profile loads, plans, says what its sources say, and names its own meter only."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from gateway.cli.profiles import view
from gateway.clock import Instant
from gateway.errors import DeviceException
from gateway.metering.inquiry import Inquiry
from gateway.metering.profile import DeviceProfile, Identity
from gateway.metering.quantity import QUANTITIES
from gateway.metering.reading import Block, RawWords
from gateway.metering.register import EXACT, NOT_AVAILABLE, Register, value_of
from gateway.modbus.plan import Read, Timing, plan
from gateway.modbus.recognising import Claim, Witness, recognise
from gateway.modbus.served import SimulatedEndpoint
from gateway.modbus.settings import SerialLink, TcpLink
from gateway.modbus.simulator import SERIAL_NUMBER, SimulatedMeter
from tests.device_profiles import independent
from tests.device_profiles.known import (
    BY_NAME,
    FILES,
    LINES,
    PROFILES,
    Line,
    agreeing,
    examples,
    facts,
)

START: Instant = 1_760_000_000_000

PROMISED = {
    "2flow-mag-11", "abb-a43", "abb-b21", "abb-b23", "acrel-adw300", "algodue-uem",
    "artemes-am2", "bg-etech-drs210c", "bg-etech-drt428m", "bg-etech-ds100", "bg-etech-ws100",
    "camille-bauer-aplus", "carlo-gavazzi-em111", "carlo-gavazzi-em112", "carlo-gavazzi-em21",
    "carlo-gavazzi-em210", "carlo-gavazzi-em24", "carlo-gavazzi-em24-e1",
    "carlo-gavazzi-em270-ct1", "carlo-gavazzi-em270-ct2", "carlo-gavazzi-em330",
    "carlo-gavazzi-em340", "carlo-gavazzi-em511", "carlo-gavazzi-em530", "carlo-gavazzi-em580",
    "carlo-gavazzi-et340", "ccs-wattnode-modbus", "chint-ddsu666", "chint-dtsu666", "ddm18sd",
    "dimplex-wpm", "dzg-dvh4013", "eastron-sdm120", "eastron-sdm220", "eastron-sdm230",
    "eastron-sdm530", "eastron-sdm54", "eastron-sdm630", "eastron-sdm72d-m",
    "eastron-sdm72d-m-2", "eastron-smart-x96-1a", "eastron-smart-x96-5c", "eltako-dsz15d",
    "equysis-ultra-e-f", "esp-p1-modbus", "ferroamp-energyhub", "ff-le-01mr", "finder-7e23",
    "finder-7m38", "garo-gnm3d", "gossen-metrawatt-energymid", "hager-ecr140d", "hager-ecr380d",
    "hiking-dds238-2", "inepro-pro380", "iskra-wm3m4", "janitza-b-series", "janitza-umg104",
    "janitza-umg511", "janitza-umg604", "janitza-umg801", "janitza-umg806", "janitza-umg96-pa",
    "janitza-umg96-pq-l", "janitza-umg96rm", "kamstrup-multical-603", "kdk-2pu-ct",
    "klefr-693x", "lovato-dmg610", "microsensor-mfe600h", "mpm3pm", "noark-ex9em",
    "onicon-system-10", "orno-we-504", "orno-we-516", "orno-we-525", "peacefair-pzem-016",
    "pflow-d116", "phoenix-contact-eem-em377", "phoenix-contact-eem-mb370", "saia-ald1",
    "saia-ale3", "saia-ale3-bidirectional", "schneider-iem3150", "schneider-iem3155",
    "schneider-iem3255", "schneider-pm2100", "schneider-pm3200", "schneider-pm5110",
    "schneider-powertag-link", "seametrics-imag4700", "shelly-pro-3em", "siemens-pac1600",
    "siemens-pac2200", "siemens-pac3200", "siemens-pac3220", "siemens-pac4200",
    "siemens-pac4220", "socomec-countis-e14", "socomec-countis-e24", "socomec-countis-e44",
    "socomec-diris-a10", "socomec-diris-a14", "socomec-diris-b30", "solaredge-se-mtr-3y",
    "sontex-supercal531", "spirax-sarco-tva", "stiebel-eltron-wpm", "sunspec-meter",
    "sunspec-meter-float", "suto-s401", "taiye-tac4300-ct", "tq-em420", "tuf-2000", "wago-879",
    "weidmueller-em525",
}  # fmt: skip
APART = {"iskra-wm3m4"}
"""What lies between a value and its exponent is not known: its source reads them one by one."""
MAIN = {
    "electricity": (
        "active_energy_import_total", "active_energy_export_total", "active_power_total",
    ),
    "heat": ("heat_energy_total", "volume_total", "thermal_power"),
    "water": ("volume_total", "flow"),
    "gas": ("volume_total", "flow"),
}  # fmt: skip
"""What a meter is bought for, by its kind."""


def all_of(profile: DeviceProfile) -> list[Register]:
    """Every register that holds a value, parts of sums included."""
    terms = (term for total in profile.computed for term in (*total.plus, *total.minus))
    return list(dict.fromkeys((*profile.registers, *terms)))


def test_the_models_that_are_promised_are_there() -> None:
    assert BY_NAME.keys() >= PROMISED
    assert FILES.keys() == BY_NAME.keys()
    assert LINES.keys() <= BY_NAME.keys(), "facts of no profile"


def test_each_profile_says_from_where_it_has_what_it_says() -> None:
    for profile in PROFILES:
        known = dict(profile.sources)
        for register in all_of(profile):
            assert register.sources, (profile.name, register.name)
            assert set(register.sources) <= known.keys(), (profile.name, register.name)
            if register.name in QUANTITIES:
                assert register.unit == QUANTITIES[register.name].unit, (profile.name, register)


def test_each_profile_has_what_such_a_meter_is_bought_for_or_says_why_not() -> None:
    for profile in PROFILES:
        counters = [q for q in profile.quantities() if QUANTITIES[q].counter]
        silent = [q for q in MAIN[profile.kind] if q not in profile.quantities()]
        assert counters or any(map(profile.why_not, silent)), f"{profile.name} counts nothing"
        if profile.kind != "electricity":
            continue
        for quantity in ("active_energy_import_total", "active_power_total"):
            there = quantity in profile.quantities() or profile.why_not(quantity)
            assert there, (profile.name, quantity)


def test_every_register_can_be_read_within_the_limits_of_its_model() -> None:
    for profile in PROFILES:
        limits = profile.limits
        wanted = [*profile.everything(), *profile.identity_registers()]
        reads = plan(wanted, limits, Timing.of(SerialLink("x"), 0.01), known=wanted)
        for register in wanted:
            holding = [read for read in reads if read.holds(register)]
            assert len(holding) == 1, (profile.name, register.name)
        for read in reads:
            assert read.count <= min(limits.max_registers, 125), profile.name
            assert not limits.even or read.address % 2 == read.count % 2 == 0, profile.name


def test_no_two_registers_of_a_profile_lie_across_one_another() -> None:
    for profile in PROFILES:
        spans = {(r.function, r.address, r.end): r.name for r in profile.everything()}
        for (function, start, end), name in spans.items():
            for (other, first, last), its in spans.items():
                across = function == other and start < first < end
                assert not across, f"{profile.name}: {name} and {its} at {first}..{last}"


def test_a_value_and_its_scale_factor_come_in_one_request() -> None:
    """A meter may change the factor between two requests, and the value would be tenfold."""
    for profile in PROFILES:
        known = profile.everything()
        for register in all_of(profile):
            for link in (SerialLink("x", 9600), TcpLink("x", 502)):
                timing = Timing.of(link, 0.02)
                reads = plan(register.parts, profile.limits, timing, known=known)
                apart = profile.name in APART
                assert apart or len(reads) == 1, (profile.name, register.name)


# ------------------------------------------------------------------------- what the sources say


def said(register: Register) -> dict[str, Any]:
    """A register as a fact has it."""
    encoding, beside = register.encoding, register.scale_register
    return {
        "function": register.function,
        "address": register.address,
        "type": encoding.type,
        "words": encoding.words,
        "word_order": encoding.word_order,
        "byte_order": encoding.byte_order,
        "scale": register.scale,
        "not_available": sorted(register.not_available),
        "scale_register": beside.address if beside else None,
    }


def stated(line: Line) -> dict[str, Any]:
    """What a fact says, less what says nothing: the word order of one register."""
    keys = ("function", "address", "type", "words", "byte_order", "not_available")
    found = {key: line[key] for key in keys if key in line}
    if "scale" in line:
        found["scale"] = Decimal(line["scale"])
    found["scale_register"] = line.get("scale_register")
    if independent.width(line) > 1 and line["type"] != "string":
        found["word_order"] = line["word_order"]
    return found


def named(profile: DeviceProfile) -> dict[str, Register]:
    """Registers by quantity, name of a part, or what they tell of the meter."""
    identity = {
        one.what: one.told_by for one in profile.identity if isinstance(one.told_by, Register)
    }
    return {**{register.name: register for register in all_of(profile)}, **identity}


def test_a_register_is_where_its_sources_have_it_or_the_difference_has_its_reason() -> None:
    for name, profile in BY_NAME.items():
        registers = named(profile)
        for line in facts(name):
            register, claim = registers.get(line["quantity"]), stated(line)
            same = register is not None and claim.items() <= said(register).items()
            where = (name, line["quantity"], line["sources"])
            if "differs" in line:
                assert line["differs"], where
                assert not same, (*where, "no difference")
            else:
                assert register is not None, (*where, "not in the profile")
                assert claim == {key: said(register)[key] for key in claim}, where


def test_a_register_names_the_sources_that_say_so_and_no_others() -> None:
    for name, profile in BY_NAME.items():
        known = dict(profile.sources)
        claimed: dict[str, set[str]] = {}
        for line in agreeing(name):
            assert set(line["sources"]) <= known.keys(), (name, line)
            claimed.setdefault(line["quantity"], set()).update(line["sources"])
        for register in all_of(profile):
            given = claimed.get(register.name)
            if given is None:
                continue
            assert given <= set(register.sources), (name, register.name)
            alone = "\nextends:" not in f"\n{FILES[name]}"
            assert not alone or given == set(register.sources), (name, register.name)


def test_energies_and_powers_are_held_against_their_sources() -> None:
    for name, profile in BY_NAME.items():
        held = {line["quantity"] for line in facts(name)}
        for quantity in MAIN[profile.kind]:
            if any(register.name == quantity for register in profile.registers):
                assert quantity in held, f"{name}: no facts of {quantity}"


def test_words_mean_what_the_document_says() -> None:
    for name, profile in BY_NAME.items():
        registers = named(profile)
        for line in examples(name):
            register = registers[line["quantity"]]
            blocks = [Block(register.function, register.address, tuple(line["words"]))]
            for part, (address, words) in zip(
                register.parts[1:], line.get("others", {}).items(), strict=True
            ):
                blocks.append(Block(part.function, int(address), tuple(words)))
            value = value_of(register, RawWords(tuple(blocks)).lookup)
            meant = NOT_AVAILABLE if line["value"] is None else Decimal(line["value"])
            assert value == meant, (name, line)
            assert line["from"], (name, line)


def test_each_profile_has_three_examples_of_words_and_what_they_mean() -> None:
    few = {name: len(examples(name)) for name in BY_NAME if len(examples(name)) < 3}
    assert few == {}


# --------------------------------------------------------------------------------------- served


def places(name: str) -> dict[str, dict[str, Any]]:
    """Where an independent reader looks: by the facts, else by what `profiles show` prints."""
    shown = view(BY_NAME[name])
    found: dict[str, dict[str, Any]] = {}
    for total in shown["computed"]:  # type: ignore[attr-defined]
        found |= {term["name"]: term for term in (*total["plus"], *total["minus"])}
    found |= {each["quantity"]: each for each in shown["registers"]}  # type: ignore[attr-defined]
    for line in agreeing(name):
        if line["quantity"] in found:
            found[line["quantity"]] = {**found[line["quantity"]], **stated(line)}
            if found[line["quantity"]]["scale_register"] is None:
                del found[line["quantity"]]["scale_register"]
    return found


async def read_back(client: independent.Client, meter: SimulatedMeter) -> int:
    """Reads every value of a simulated meter and holds it against what the meter stands at."""
    name, values = meter.profile.name, {}
    for quantity, place in places(name).items():

        async def words(at: dict[str, Any]) -> tuple[int, ...]:
            function, address = at["function"], at["address"]
            return await client.read(meter.unit, function, address, independent.width(at))

        others = {}
        for key in ("scale_register", "unit_register"):
            at = place.get(key)
            if at is not None:
                at = at if isinstance(at, dict) else {"address": at, "type": "s16"}
                at = {"function": place["function"], **at}
                others[at["address"]] = await words(at)
        values[quantity] = independent.scaled(await words(place), place, others)
    for quantity in meter.profile.quantities():
        total = next((t for t in meter.profile.computed if t.quantity == quantity), None)
        terms = [(1, quantity)] if total is None else []
        for sign, side in ((1, total.plus), (-1, total.minus)) if total is not None else ():
            terms += [(sign, register.name) for register in side]
        found = Decimal(0)
        for sign, part in terms:
            value = values[part]
            assert value is not None, (name, part)
            found = EXACT.add(found, sign * value)
        assert found == meter.value(quantity, START), (name, quantity)
    return len(values)


async def test_an_independent_client_reads_back_what_each_simulated_meter_stands_at() -> None:
    meters = [SimulatedMeter(p, unit, START) for unit, p in enumerate(PROFILES, 1)]
    for first in range(0, len(meters), 200):  # units of one endpoint
        some = meters[first : first + 200]
        for unit, meter in enumerate(some, 1):
            meter.unit = unit
        endpoint = SimulatedEndpoint(some, framing="tcp", turnaround=0, now=lambda: START)
        client = await independent.Client.connect(await endpoint.open())
        try:
            for meter in some:
                assert await read_back(client, meter) >= 2, meter.profile.name
        finally:
            await client.close()
            await endpoint.close()


# ------------------------------------------------------------------------------------- identity


def models(profile: DeviceProfile) -> Iterator[Identity]:
    """What tells the model, not only its maker or how it is set."""
    for one in profile.identity:
        if one.expected and not one.what.startswith(("manufacturer", "application")):
            yield one


def place_of(identity: Identity) -> tuple[object, ...]:
    told_by = identity.told_by
    if isinstance(told_by, Inquiry):
        return told_by.function, told_by.object
    return told_by.function, told_by.address, told_by.encoding


def test_no_two_profiles_claim_the_same_meter() -> None:
    claims = [(p, {place_of(i): set(i.expected) for i in models(p)}) for p in PROFILES]
    claims = [(p, said) for p, said in claims if said and p.sunspec is None]
    for n, (one, its) in enumerate(claims):
        for other, theirs in claims[n + 1 :]:
            shared = its.keys() & theirs.keys()
            apart = any(not its[place] & theirs[place] for place in shared)
            assert apart or not shared, f"{one.name} and {other.name} claim the same meter"


async def claims_of(meter: SimulatedMeter) -> tuple[Claim, ...]:
    async def ask(read: Read) -> Block:
        found = meter.words(read.function, read.address, read.count, START)
        if isinstance(found, int):
            raise DeviceException("", meter.unit, str(read), found)
        return Block(read.function, read.address, found)

    return await recognise(PROFILES, Witness(meter.unit, ask))


async def test_a_meter_that_says_its_model_is_taken_for_that_and_nothing_else() -> None:
    for profile in PROFILES:
        by_register = all(isinstance(one.told_by, Register) for one in profile.identity)
        if not by_register:
            continue  # told by 17 or 43/14: asked for in tests/modbus/test_recognising.py
        found = await claims_of(SimulatedMeter(profile, 5, START))
        names = [claim.profile.name for claim in found]
        if profile.sunspec is not None or any(models(profile)):
            assert names == [profile.name], names
            assert found[0].named_by
        else:
            assert not any(claim.named_by for claim in found), (profile.name, names)
            assert profile.name in names or not names, (profile.name, names)
            for other in found:  # what looks like it has its map, or another part of it
                its, mine = map_of(other.profile), map_of(profile)
                assert 2 * len(its & mine) >= min(len(its), len(mine)), (profile.name, names)


def map_of(profile: DeviceProfile) -> set[tuple[int, int, str]]:
    return {(r.function, r.address, r.encoding.type) for r in profile.everything()}


def test_a_serial_number_is_shown_as_it_is_written() -> None:
    for profile in PROFILES:
        for one in profile.identity:
            if one.what != "serial_number" or not isinstance(one.told_by, Register):
                continue
            words = SimulatedMeter(profile, 5, START).words(
                one.told_by.function, one.told_by.address, one.told_by.count, START
            )
            if isinstance(words, int):
                continue  # only in a larger block
            place = {
                "type": one.told_by.encoding.type,
                "word_order": one.told_by.encoding.word_order,
                "byte_order": one.told_by.encoding.byte_order,
            }
            if place["type"] == "string":
                assert independent.text(words, place) == SERIAL_NUMBER, profile.name
            else:
                assert independent.number(words, place) == Decimal(SERIAL_NUMBER), profile.name


if not PROFILES:
    pytest.fail("no profile is shipped")
