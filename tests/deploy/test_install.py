"""The install script, run for real below a folder; and where Python is missing or too old."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def install(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(ROOT / "deploy/install.sh")],
        capture_output=True,
        text=True,
        env={**os.environ, "DESTDIR": str(folder), **environment},
        timeout=600,
        check=False,
    )


@pytest.mark.timeout(900)
def test_it_installs_upgrades_and_leaves_configuration_and_buffer_alone(tmp_path: Path) -> None:
    first = install(tmp_path)
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""
    assert "systemctl enable --now meter-gateway" in first.stdout
    opt, etc = tmp_path / "opt/meter-gateway", tmp_path / "etc/meter-gateway"
    assert (etc / "tokens").stat().st_mode & 0o777 == 0o700
    command = opt / "current/bin/meter-gateway"
    said = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert said.stdout.startswith("meter-gateway, version ")
    listed = subprocess.run(
        [command, "profiles", "list", "--json"], capture_output=True, text=True, check=True
    )
    shipped = {path.stem for path in (ROOT / "device_profiles").glob("*.yaml")}
    assert {profile["name"] for profile in json.loads(listed.stdout)} == shipped
    link = tmp_path / "usr/local/bin/meter-gateway"
    assert os.readlink(link) == "/opt/meter-gateway/current/bin/meter-gateway"
    checked = subprocess.run(
        [command, "check", "--config", etc / "gateway.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr

    (etc / "gateway.yaml").write_text("mine: true\n")
    (etc / "tokens/basement").write_text("secret")
    buffer = tmp_path / "var/lib/meter-gateway/readings.db"
    buffer.parent.mkdir(parents=True)
    buffer.write_bytes(b"readings")
    before = os.readlink(opt / "current")
    time.sleep(1)  # environments are named by the second
    second = install(tmp_path)
    assert second.returncode == 0, second.stderr
    assert os.readlink(opt / "current") != before
    assert (etc / "gateway.yaml").read_text() == "mine: true\n"
    assert (etc / "tokens/basement").read_text() == "secret"
    assert buffer.read_bytes() == b"readings"
    kept = {path.name for path in opt.glob("env-*")}
    assert kept == {before, os.readlink(opt / "current")}


def test_an_installation_that_fails_leaves_the_old_one_in_force(tmp_path: Path) -> None:
    old = tmp_path / "opt/meter-gateway/env-old"
    old.mkdir(parents=True)
    (old.parent / "current").symlink_to("env-old")
    failed = install(tmp_path, PIP_INDEX_URL="http://127.0.0.1:9/", PIP_RETRIES="0")
    assert failed.returncode != 0
    assert os.readlink(old.parent / "current") == "env-old"
    assert [path.name for path in old.parent.glob("env-*")] == ["env-old"]


@pytest.fixture
def pythons(tmp_path: Path) -> Path:
    """A folder for PATH in which only the tools of the scripts are, and no Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("bash", "dirname", "id", "date"):
        found = shutil.which(tool)
        assert found is not None
        (folder / tool).symlink_to(found)
    return folder


def made(folder: Path, name: str, answers: str) -> None:
    (folder / name).write_text(f"#!{shutil.which('bash')}\n{answers}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (None, "there is none"),
        ("exit 1", "there is none"),  # too old
        (
            'case "$*" in *ensurepip*) exit 1;; *--version) echo Python 3.11.2;; esac',
            "Python 3.11.2 is there, but its venv is not",
        ),
    ],
)
@pytest.mark.parametrize("script", ["deploy/install.sh", "deploy/make-venv.sh"])
def test_without_a_python_that_can_it_says_what_to_install(
    script: str, answers: str | None, said: str, pythons: Path, tmp_path: Path
) -> None:
    if answers is not None:
        for name in ("python3", "python3.11"):
            made(pythons, name, answers)
    done = subprocess.run(
        [str(pythons / "bash"), str(ROOT / script), str(tmp_path / "venv"), "requirements.lock"],
        capture_output=True,
        text=True,
        env={"PATH": str(pythons), "DESTDIR": str(tmp_path / "root")},
        check=False,
    )
    assert done.returncode == 69
    assert said in done.stderr
    assert "sudo apt-get install python3 python3-venv" in done.stderr
    assert not (tmp_path / "root").exists()


def test_what_building_needs_is_locked_to_what_the_tests_use() -> None:
    def pinned(path: Path) -> set[str]:
        lines = path.read_text().splitlines()
        return {line.split(" ")[0] for line in lines if "==" in line and line[0] != " "}

    locked = pinned(ROOT / "deploy/build.lock")
    assert any(line.startswith("hatchling==") for line in locked)
    assert locked <= pinned(ROOT / "requirements-dev.lock")
