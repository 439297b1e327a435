"""Commands run as a person runs them: in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def command(tmp_path: Path) -> Run:
    """Runs meter-gateway with arguments; output and errors apart."""

    def run(
        *arguments: str | Path, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("METER_GATEWAY")}
        return subprocess.run(
            [sys.executable, "-m", "gateway.cli.main", *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**kept, **(environment or {})},
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A configuration without a mistake; its profiles are those of tests/config."""
    (tmp_path / "basement.token").write_text("abc-123\n")
    (tmp_path / "basement.token").chmod(0o600)
    (tmp_path / "riser.port").touch()
    profiles = Path(__file__).parents[1] / "config" / "profiles"
    path = tmp_path / "gateway.yaml"
    path.write_text(f"""\
timezone: Europe/Oslo
energinet:
  senders:
    - {{name: basement, token: {{file: basement.token}}}}
defaults: {{every: 15 min, as: consumption}}
buses:
  riser: {{serial: riser.port, baudrate: 9600, parity: none}}
meters:
  - name: main-supply
    bus: riser
    unit: 1
    profile: acme-e1
    send:
      - {{meterID: "7777777777", quantity: active_energy_import_total}}
      - {{meterID: "7777777778", quantity: active_power_total, as: mean}}
  - name: heating
    bus: riser
    unit: 2
    profile: acme-heat
    send:
      - {{meterID: "7777777779", quantity: heat_energy_total, every: 5 min}}
profiles: {profiles}
""")
    return path
