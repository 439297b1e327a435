"""`integrate: true`: a consumption of what the meter has no counter for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.cli.costs import costs_of
from gateway.config import Loaded
from gateway.errors import Mistake

Load = Callable[..., Loaded]
Mistakes = Callable[..., list[Mistake]]

ENTRY = '{meterID: "7777777778", quantity: active_power_total, as: mean, every: 15 min}'
WITHOUT = "quantity: reactive_energy_import_total"


def with_entry(whole: str, more: str, *, integrate: str = "true") -> str:
    """The first meter has no counter of reactive energy, and sends this too."""
    text = whole.replace("profile: acme-e1", "profile: eastron-sdm72d-m-2")
    text = text.replace(ENTRY, f'{{meterID: "7777777778", {more}}}')
    return text.replace("    unit: 1\n", f"    unit: 1\n    integrate: {integrate}\n")


def test_what_has_no_counter_is_made_of_its_power_and_the_rest_of_its_counter(
    loaded: Load, whole: str
) -> None:
    result = loaded(with_entry(whole, WITHOUT))
    assert result.warnings == ()
    counter, made = result.config.meters[0].send
    assert (counter.integrates, counter.measured) == ("", "active_energy_import_total")
    assert (made.integrates, made.measured) == ("reactive_power_total", "reactive_power_total")
    assert (made.quantity, made.as_) == ("reactive_energy_import_total", "consumption")
    # And is paid for: a poll reads the power.
    without = loaded(whole.replace("profile: acme-e1", "profile: eastron-sdm72d-m-2"))
    assert costs_of(result.config).buses[0].requests >= costs_of(without.config).buses[0].requests


def test_without_the_word_nothing_is_made_of_power_and_the_mistake_names_it(
    mistakes: Mistakes, whole: str
) -> None:
    (found,) = mistakes(with_entry(whole, WITHOUT, integrate="false"))
    assert "has no reactive_energy_import_total" in found.message
    assert found.suggestion == "`integrate: true` on the meter makes it of reactive_power_total"


@pytest.mark.parametrize("kind", ["counter", "mean", "last"])
def test_only_a_consumption_can_be_made(mistakes: Mistakes, whole: str, kind: str) -> None:
    (found,) = mistakes(with_entry(whole, f"{WITHOUT}, as: {kind}"))
    assert found.message.startswith(f"as: {kind} of what is integrated")
    assert found.suggestion == "as: consumption"


def test_what_there_is_no_power_for_is_still_missing(mistakes: Mistakes, whole: str) -> None:
    (found,) = mistakes(with_entry(whole, "quantity: heat_energy_total"))
    assert "has no heat_energy_total" in found.message


@pytest.mark.parametrize(
    ("entry", "warning"),
    [
        ("quantity: active_power_total, as: mean, every: 15 min", "integrate: it has no effect"),
        (f"{WITHOUT}, gap: spread", "gap: it has no effect on what is integrated"),
        (f"{WITHOUT}, every: 30 s", "the bus is polled every 1 min, less often than every 30 s"),
    ],
)
def test_what_has_no_effect_or_too_few_polls_is_a_warning(
    loaded: Load, whole: str, entry: str, warning: str
) -> None:
    (found,) = loaded(with_entry(whole, entry)).warnings
    assert warning in found.message
