"""Which profile a unit that answers has: the model's own, and none where it is another's."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import evolve

from gateway.config.library import Library
from gateway.errors import BadAnswer, DeviceException, LinkDown, MeterError, MeterTimeout
from gateway.metering.inquiry import Inquiry, Told
from gateway.metering.profile import Identity
from gateway.metering.reading import Block
from gateway.metering.register import Words
from gateway.modbus.plan import Read
from gateway.modbus.recognising import Claim, Inquire, Witness, recognise
from gateway.modbus.simulator import SimulatedMeter

LIBRARY = Library(None)
PROFILES = LIBRARY.all()
START = 1_760_000_000_000
NAMED = {
    "abb-b21": "model_name B21",
    "abb-b23": "model_name B23",
    "algodue-uem": "model_code 3",
    "carlo-gavazzi-em111": "model_code 101",
    "carlo-gavazzi-em112": "model_code 102",
    "carlo-gavazzi-em24-e1": "model_code 1648",
    "carlo-gavazzi-em330": "model_code 331",
    "carlo-gavazzi-em340": "model_code 341",
    "carlo-gavazzi-em530": "model_code 1744",
    "carlo-gavazzi-et340": "model_code 345",
    "eastron-sdm72d-m-2": "model_code 137",
    "saia-ale3": "model_name ALE3D5FD10C2A00",
    "schneider-iem3155": "model_name iEM3155",
    "shelly-pro-3em": "model_name SPEM-003CEBEU",
    "sunspec-meter": "SunSpec meter model 204 at 40070",
}
"""What each says that only it says; the others only look like what they are."""
UNNAMED = ("eastron-sdm630", "inepro-pro380", "janitza-umg96rm", "socomec-countis-e24")

Behave = Callable[[Read], Words | int | Exception]


async def claims(
    behave: Behave, *, unit: int = 5, profiles=PROFILES, inquire: Inquire | None = None
) -> tuple[Claim, ...]:
    """What a device is taken for that answers each read so: words, or an exception's code."""

    async def ask(read: Read) -> Block:
        found = behave(read)
        if isinstance(found, Exception):
            raise found
        if isinstance(found, int):
            raise DeviceException("riser", unit, str(read), found)
        return Block(read.function, read.address, found)

    return await recognise(profiles, Witness(unit, ask, inquire))


def meter(name: str, **more: object) -> Behave:
    """A simulated meter, a little later at each read."""
    simulated = SimulatedMeter(LIBRARY.get(name), 5, START, **more)  # type: ignore[arg-type]
    at = iter(range(START, START + 10**9, 50))
    return lambda read: simulated.words(read.function, read.address, read.count, next(at))


@pytest.mark.parametrize("name", [*NAMED, *UNNAMED])
async def test_a_meter_is_taken_for_its_own_model_alone(name: str) -> None:
    found = await claims(meter(name, serial_number="4711"))
    assert [(one.profile.name, one.named_by) for one in found] == [(name, NAMED.get(name, ""))]
    tells = {identity.what for identity in LIBRARY.get(name).identity}
    assert found[0].serial_number == ("4711" if "serial_number" in tells else None)


DEVICES: dict[str, Behave] = {
    "zeros everywhere": lambda read: (0,) * read.count,
    "ones everywhere": lambda read: (0xFFFF,) * read.count,
    "each register its address": lambda read: tuple(range(read.address, read.address + read.count)),
    "nothing but exceptions": lambda read: 2,
    "nothing at all": lambda read: MeterTimeout("riser", 5, str(read), "no answer"),
    "damaged answers": lambda read: BadAnswer("riser", 5, str(read), "damaged", reason="crc"),
    "every code by chance": lambda read: tuple(
        {11: 341, 40960: 7, 64514: 137, 64001: 42}.get(n, n * 7919 % 65536)
        for n in range(read.address, read.address + read.count)
    ),
}


@pytest.mark.parametrize("device", DEVICES)
async def test_a_device_that_only_answers_is_unknown(device: str) -> None:
    assert await claims(DEVICES[device]) == ()


@pytest.mark.parametrize("seed", range(20))
async def test_random_words_are_no_meter(seed: int) -> None:
    def word(function: int, address: int) -> int:
        """Whatever is read before it; neighbours are of one size."""
        top = random.Random(f"{seed} {function} {address // 50}").choice((2, 300, 0x10000))
        return random.Random(f"{seed} {function} {address}").randrange(top)

    def behave(read: Read) -> Words:
        places = range(read.address, read.address + read.count)
        return tuple(word(read.function, n) for n in places)

    assert await claims(behave) == ()


async def test_a_meter_that_gives_less_than_a_profile_has_is_not_taken_for_it() -> None:
    sdm = meter("eastron-sdm630")
    found = await claims(lambda read: 2 if read.address >= 342 else sdm(read))
    assert found == ()


async def test_a_meter_with_one_value_that_cannot_be_is_not_taken_for_it() -> None:
    sdm = meter("eastron-sdm120")

    def behave(read: Read) -> Words | int | Exception:
        words = sdm(read)
        if read.function == 4 and read.address == 70 and isinstance(words, tuple):
            return (0x4480, 0, *words[2:])  # 1024 Hz
        return words

    assert await claims(behave) == ()


async def test_where_a_meter_has_zeros_for_what_it_has_not_both_are_named() -> None:
    sdm = meter("eastron-sdm120")

    def behave(read: Read) -> Words | int | Exception:
        if read.function == 3:
            return sdm(read)
        words: list[int] = []
        for address in range(read.address, read.address + read.count, 2):
            found = sdm(Read(4, address, 2))
            words += found if isinstance(found, tuple) else (0, 0)
        return tuple(words)

    found = await claims(behave)
    assert {one.profile.name for one in found} >= {"eastron-sdm120", "eastron-smart-x96-5c"}
    assert not any(one.named_by for one in found)


async def test_models_of_one_map_look_like_one_another() -> None:
    found = await claims(meter("eastron-sdm120"))
    names = [one.profile.name for one in found]
    assert names == ["eastron-sdm120", "eastron-sdm220", "eastron-sdm230"]


@pytest.mark.parametrize("name", ["dimplex-wpm", "suto-s401", "hiking-dds238-2"])
async def test_what_a_few_values_could_be_by_chance_is_no_model(name: str) -> None:
    assert await claims(meter(name)) == ()


async def test_a_model_is_believed_when_it_says_the_same_twice() -> None:
    """A late answer to another read would look like it once."""
    abb = meter("abb-b23")
    seen: list[Read] = []

    def behave(read: Read) -> Words | int | Exception:
        seen.append(read)
        if read.address == 35168 and seen.count(read) > 1:
            return (0, 0)
        return abb(read)

    found = await claims(behave)
    assert "abb-b23" not in {one.profile.name for one in found}
    assert not any(one.named_by for one in found)


async def test_a_damaged_answer_and_a_lost_one_are_asked_for_again() -> None:
    abb = meter("abb-b23")
    seen: list[Read] = []

    def behave(read: Read) -> Words | int | Exception:
        seen.append(read)
        if seen.count(read) == 1:
            return MeterTimeout("riser", 5, str(read), "no answer")
        return abb(read)

    (found,) = await claims(behave)
    assert found.profile.name == "abb-b23"

    seen.clear()

    def damaged(read: Read) -> Words | int | Exception:
        seen.append(read)
        if seen.count(read) < 3:
            return BadAnswer("riser", 5, str(read), "damaged", reason="crc")
        return abb(read)

    (found,) = await claims(damaged)
    assert found.profile.name == "abb-b23"


async def test_a_line_that_breaks_is_no_answer() -> None:
    with pytest.raises(LinkDown):
        await claims(lambda read: LinkDown("riser", "the connection was lost"))


async def test_the_same_model_at_another_sunspec_base_is_found_with_its_serial_number() -> None:
    sunspec = meter("sunspec-meter", serial_number="A-77")

    def behave(read: Read) -> Words | int | Exception:
        if read.address < 50_000:
            return 2
        return sunspec(Read(read.function, read.address - 10_000, read.count))

    (found,) = await claims(behave)
    assert found.named_by == "SunSpec meter model 204 at 50070"
    assert found.serial_number == "A-77"


async def test_a_heat_meter_that_says_another_address_than_its_unit_is_not_taken_for_it() -> None:
    heat = meter("equysis-ultra-e-f")
    assert [one.profile.name for one in await claims(heat)] == ["equysis-ultra-e-f"]
    assert await claims(heat, unit=6) == ()


async def test_a_profile_of_ones_own_for_the_same_model_is_named_beside_the_shipped_one(
    tmp_path: Path,
) -> None:
    own = "extends: abb-b23\nmodel: B23 in the cellar\nwithout: [frequency]\n"
    (tmp_path / "my-b23.yaml").write_text(own)
    found = await claims(meter("abb-b23"), profiles=Library(tmp_path).all())
    assert [one.profile.name for one in found] == ["abb-b23", "my-b23"]


async def test_of_two_profiles_the_one_that_explains_more_of_what_is_there_is_taken(
    tmp_path: Path,
) -> None:
    less = "extends: inepro-pro380\nmodel: PRO1\nwithout: [voltage_l3, current_l3]\n"
    (tmp_path / "inepro-pro1.yaml").write_text(less)
    profiles = Library(tmp_path).all()
    full = meter("inepro-pro380")
    found = await claims(full, profiles=profiles)
    assert [one.profile.name for one in found] == ["inepro-pro380"]

    places = [r.address for r in LIBRARY.get("inepro-pro380").registers if r.name.endswith("_l3")]

    def two_phases(read: Read) -> Words | int | Exception:
        words = full(read)
        if not isinstance(words, tuple):
            return words
        blank = {place + i for place in places for i in range(2)}
        return tuple(0 if read.address + i in blank else word for i, word in enumerate(words))

    found = await claims(two_phases, profiles=profiles)
    assert {one.profile.name for one in found} == {"inepro-pro380", "inepro-pro1"}


async def test_zeros_are_no_values_to_know_a_meter_by(tmp_path: Path) -> None:
    (tmp_path / "acme-heat.yaml").write_text("""\
maker: Acme
model: Heat
kind: heat
sources: {manual: "Acme Heat"}
defaults: {function: 3, type: f32, sources: [manual]}
registers:
  - {quantity: heat_energy_total, address: 0, unit: kWh}
  - {quantity: supply_temperature, address: 2, unit: °C}
  - {quantity: return_temperature, address: 4, unit: °C}
""")
    profiles = (Library(tmp_path).get("acme-heat"),)
    assert await claims(lambda read: (0,) * read.count, profiles=profiles) == ()
    warm = (0x4640, 0xE400, 0x4290, 0, 0x4220, 0)  # 12345 kWh, 72 °C, 40 °C
    (found,) = await claims(lambda read: warm[read.address :][: read.count], profiles=profiles)
    assert (found.profile.name, found.serial_number) == ("acme-heat", None)


async def test_a_meter_that_names_its_model_may_lack_a_register() -> None:
    em340 = meter("carlo-gavazzi-em340")
    refused = LIBRARY.get("carlo-gavazzi-em340").registers[-1].address

    def behave(read: Read) -> Words | int | Exception:
        return 2 if read.address <= refused < read.address + read.count else em340(read)

    (found,) = await claims(behave)
    assert (found.profile.name, found.named_by) == ("carlo-gavazzi-em340", "model_code 341")


# ------------------------------------------------------------------ what a device tells of itself

SDM = LIBRARY.get("eastron-sdm630")
TELLS = {
    Inquiry(43, 1): Told(43, ((0, "Eastron"), (1, "SDM120CT"), (2, "1.0"))),
    Inquiry(43, 0x80): Told(43, ((0x80, "4711"),)),
    Inquiry(17): Told(17, ((0, "SDM120CT"),)),
}


def that_tells(name: Inquiry, *expected: str):
    """The profiles, with one more that is known by what it tells."""
    identity = (
        Identity("model_name", name, expected),
        Identity("serial_number", Inquiry(43, 0x80)),
    )
    return (*PROFILES, evolve(SDM, name="sdm120ct", identity=identity))


@pytest.mark.parametrize("name", [Inquiry(43, 1), Inquiry(17)], ids=str)
async def test_a_meter_is_named_by_what_it_tells_of_itself(name: Inquiry) -> None:
    async def inquire(inquiry: Inquiry) -> Told:
        return TELLS[inquiry]

    profiles = that_tells(name, "SDM120C", "SDM120CT")
    (claim,) = await claims(meter("eastron-sdm630"), profiles=profiles, inquire=inquire)
    assert (claim.profile.name, claim.named_by) == ("sdm120ct", "model_name SDM120CT")
    assert claim.serial_number == "4711"
    (claim,) = await claims(
        meter("eastron-sdm630"), profiles=that_tells(name, "SDM230"), inquire=inquire
    )
    assert (claim.profile, claim.named_by) == (SDM, "")


@pytest.mark.parametrize("name", [Inquiry(43, 1), Inquiry(17)], ids=str)
@pytest.mark.parametrize(
    ("error", "times"),
    [
        (DeviceException("riser", 5, "f43", 1), 1),
        (MeterTimeout("riser", 5, "f43", "no answer"), 2),
        (BadAnswer("riser", 5, "f43", "damaged", reason="crc"), 3),
    ],
)
async def test_a_meter_that_tells_nothing_of_itself_is_known_by_its_registers(
    name: Inquiry, error: MeterError, times: int
) -> None:
    asked: list[Inquiry] = []

    async def inquire(inquiry: Inquiry) -> Told:
        asked.append(inquiry)
        raise error

    profiles = [*that_tells(name, "SDM120CT"), *that_tells(name, "SDM230")]
    found = await claims(meter("abb-b23"), profiles=profiles, inquire=inquire)
    assert {(one.profile.name, one.named_by) for one in found} == {("abb-b23", "model_name B23")}
    assert asked == [name] * times
