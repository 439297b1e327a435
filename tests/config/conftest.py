"""Configurations written to a folder of their own, and what reading them gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from gateway.config import Loaded, load
from gateway.errors import ConfigurationError, Mistake

PROFILES = Path(__file__).parent / "profiles"

WHOLE = f"""\
timezone: Europe/Oslo
energinet:
  senders:
    - name: basement
      import: north-gate
      token: {{file: basement.token}}
defaults:
  every: 1 h
  as: consumption
buses:
  riser:
    serial: riser.port
  plant-room:
    tcp: 192.168.10.20:502
meters:
  - name: main-supply
    bus: riser
    unit: 1
    profile: acme-e1
    send:
      - {{meterID: "7777777777", quantity: active_energy_import_total}}
      - {{meterID: "7777777778", quantity: active_power_total, as: mean, every: 15 min}}
  - name: heating
    bus: plant-room
    unit: 255
    profile: acme-heat
    send:
      - {{meterID: "7777777779", quantity: heat_energy_total, as: counter}}
profiles: {PROFILES}
"""


@pytest.fixture
def whole() -> str:
    """A configuration without a mistake and without a warning."""
    return WHOLE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a token that only its owner can read, and something that stands for a port."""
    token = tmp_path / "basement.token"
    token.write_text("abc-123\n")
    token.chmod(0o600)
    (tmp_path / "riser.port").touch()
    return tmp_path


@pytest.fixture
def loaded(folder: Path) -> Callable[..., Loaded]:
    """Writes a text as gateway.yaml and loads it."""

    def write(
        text: str, environment: Mapping[str, str] | None = None, *, tokens: bool = True
    ) -> Loaded:
        path = folder / "gateway.yaml"
        path.write_text(text, encoding="utf-8")
        return load(path, environment=environment or {}, tokens=tokens)

    return write


@pytest.fixture
def mistakes(loaded: Callable[..., Loaded]) -> Callable[..., list[Mistake]]:
    """Writes a text as gateway.yaml; what is wrong with it, warnings left out."""

    def find(text: str, environment: Mapping[str, str] | None = None) -> list[Mistake]:
        try:
            loaded(text, environment)
        except ConfigurationError as error:
            return [mistake for mistake in error.mistakes if mistake.level == "error"]
        return []

    return find
