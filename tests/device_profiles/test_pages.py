"""The page of meters is what the profiles say, and holds sources against one another."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

from tests.device_profiles.known import PROFILES

DOCS = Path(__file__).parents[2] / "docs"


def meters() -> ModuleType:
    spec = importlib.util.spec_from_file_location("meters", DOCS / "meters.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


METERS = meters()


def test_the_page_of_meters_is_what_the_profiles_say() -> None:
    assert (DOCS / "meters.md").read_text("utf-8") == METERS.page(), "make docs"


def test_each_profile_has_its_row_and_its_part_on_the_page() -> None:
    page = METERS.page()
    for profile in PROFILES:
        assert f"| [{profile.name}](#{profile.name}) |" in page
        assert f"\n### {profile.name}\n" in page


def test_a_meter_that_is_said_to_be_absent_is_absent() -> None:
    absent = json.loads(METERS.ABSENT.read_text("utf-8"))
    assert list(absent) == sorted(absent, key=str.casefold)
    here = {name for p in PROFILES for name in (p.model, *p.aliases)}
    page = METERS.page()
    for meter, why in absent.items():
        assert f"| {meter} | {why} |" in page
        words = meter.split(" / ")
        assert not here & {*words, words[0].split()[-1]}, meter


def test_for_forty_models_sources_are_compared() -> None:
    several = {
        profile.name
        for profile in PROFILES
        for quantity in METERS.COMPARED
        if len({s for _, each in METERS.compared(profile.name, quantity) for s in each}) > 1
    }
    assert len(several) >= 40


def test_sources_that_say_the_same_are_one_place_and_others_are_not() -> None:
    assert METERS.compared("abb-b21", "active_energy_import_total") == [
        ("f3 @20480 u64 × 0.01", ["victron", "mbmd"])
    ]
    places = METERS.compared("mpm3pm", "active_power_total")
    assert [sources for _, sources in places] == [["mbmd"], ["openwb"]]
    assert METERS._cell(places).startswith("**function differs**")
    counters = METERS.compared("peacefair-pzem-016", "active_energy_import_total")
    assert METERS._cell(counters).startswith("**conflict**")
