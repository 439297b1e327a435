"""The systemd unit: sound, hardened, and still allowed what the gateway needs."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.config import load
from gateway.errors import AlreadyRunning, ConfigurationError

DEPLOY = Path(__file__).parents[2] / "deploy"
UNIT = DEPLOY / "meter-gateway.service"
MOST_EXPOSED = 2.0


def settings() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


@pytest.fixture
def analyze(debian: Callable[[str, str], None]) -> Callable[..., subprocess.CompletedProcess[str]]:
    debian("systemd-analyze", "systemd")

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["systemd-analyze", *map(str, arguments)], capture_output=True, text=True, check=False
        )

    return run


def test_systemd_finds_no_mistake_in_the_unit(
    analyze: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    # The program is not installed here; everything else is judged as it stands.
    program = re.compile(r"^ExecStart=/opt/\S+", re.MULTILINE)
    unit = tmp_path / UNIT.name
    unit.write_text(program.sub("ExecStart=/bin/true", UNIT.read_text(), count=1))
    done = analyze("verify", "--man=no", unit)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_service_is_hardened(
    analyze: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = analyze("security", "--offline=true", "--no-pager", UNIT)
    match = re.search(r"Overall exposure level for \S+: (\d+\.\d+)", done.stdout)
    assert match, done.stdout + done.stderr
    assert float(match[1]) <= MOST_EXPOSED


def test_the_service_may_ask_the_clock_and_which_boot_this_is() -> None:
    found = settings()
    assert "ProtectClock" not in found
    assert "ProcSubset" not in found
    allowed = found["SystemCallFilter"][-1].split()  # the last word on a call counts
    assert allowed == ["adjtimex", "clock_adjtime", "clock_adjtime64"]


def test_a_kind_of_adapter_is_known_before_the_first_one_is_plugged_in() -> None:
    found = settings()
    for key in ("Wants", "After"):
        words = " ".join(found[key])
        assert "modprobe@usbserial.service" in words
        assert "modprobe@cdc_acm.service" in words


def test_only_a_mistake_in_the_configuration_ends_it_for_good() -> None:
    found = settings()
    assert found["Restart"] == ["always"]
    assert found["StartLimitIntervalSec"] == ["0"]
    assert found["RestartPreventExitStatus"] == [str(ConfigurationError.exit_code)]
    assert str(AlreadyRunning.exit_code) not in found["RestartPreventExitStatus"]


def test_the_token_in_the_sample_is_the_credential_that_the_unit_gives() -> None:
    (loaded,) = settings()["LoadCredential"]
    name, _, folder = loaded.partition(":")
    sample = (DEPLOY / "gateway.yaml").read_text()
    assert f"{{credential: {name}_basement}}" in sample
    assert f"{folder}/basement" in sample


def test_what_the_sample_leaves_out_by_comments_is_sound_too(tmp_path: Path) -> None:
    sample = (DEPLOY / "gateway.yaml").read_text()
    whole = re.sub(r"^( +)# (baudrate|parity|plant-room|  tcp|multiplier|max_power|- \{)",
                   r"\1\2", sample, flags=re.MULTILINE)  # fmt: skip
    assert whole.count("\n  plant-room:") == 1
    for text in (sample, whole):
        (tmp_path / "gateway.yaml").write_text(text)
        loaded = load(tmp_path / "gateway.yaml", environment={})
        warned = " ".join(mistake.message for mistake in loaded.warnings)
        assert "systemd credential" in warned
    config = load(tmp_path / "gateway.yaml", environment={}).config
    assert [bus.name for bus in config.buses] == ["riser", "plant-room"]
    assert [len(meter.send) for meter in config.meters] == [2]
