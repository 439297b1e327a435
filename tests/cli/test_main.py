from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest

import gateway
from gateway.cli import main
from gateway.cli.output import render
from gateway.errors import GatewayError, Mistake
from tests.cli.world import call
from tests.cli.world import site as site_in
from tests.ordinary import ORDINARY

METERS = (
    "{name: main, bus: plant, unit: 1, profile: abb-b23,"
    ' send: [{meterID: "1", quantity: active_energy_import_total}]}',
)
HEAVY = ("httpx", "pymodbus", "apscheduler", "rich", "sqlite3", "ruamel", "serial", "asyncio")


@pytest.mark.parametrize(
    ("arguments", "heavy"),
    [(["--help"], HEAVY), (["--version"], HEAVY), (["explain"], HEAVY[:5]), (["check"], HEAVY[:4])],
)
def test_a_command_imports_only_what_it_needs(arguments: list[str], heavy: tuple[str, ...]) -> None:
    code = (
        "import sys, json\n"
        "from gateway.cli.main import run\n"
        f"run({arguments})\n"
        f"print(json.dumps([name for name in {heavy} if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_command_in_the_table_exists_and_explains_itself(name: str) -> None:
    place = main.COMMANDS[name][0]
    module, _, function = place.partition(":")
    command = getattr(import_module(module), function)
    assert isinstance(command, click.Command)
    assert command.help
    if not isinstance(command, click.Group):
        options = {opt for param in command.params for opt in param.opts}
        assert name == "explain" or name == "demo" or "--config" in options


def test_help_lists_every_command(command) -> None:  # type: ignore[no-untyped-def]
    done = command("--help")
    assert done.returncode == 0
    for name in main.COMMANDS:
        assert f"\n  {name} " in done.stdout


def test_the_version_is_said(command) -> None:  # type: ignore[no-untyped-def]
    assert command("--version").stdout == f"meter-gateway, version {gateway.__version__}\n"


def test_a_wrong_word_is_a_mistake_of_usage(command) -> None:  # type: ignore[no-untyped-def]
    for arguments in (
        ["chek"],
        ["check", "--confg", "x"],
        ["profiles", "show"],
        ["explain", "a", "b"],
    ):
        done = command(*arguments)
        assert done.returncode == 2
        assert done.stdout == ""
        assert "Usage" in done.stderr


def test_the_configuration_s_mistakes_end_a_command_with_78(command, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "x.yaml").write_text("timezone: Europe/Olso\n")
    done = command("check", "--config", "x.yaml")
    assert done.returncode == 78
    assert done.stdout == ""
    assert (
        'x.yaml:1:11: error: timezone: "Europe/Olso" is not a time zone\n'
        "   1 | timezone: Europe/Olso\n"
        '     |           ^^^^^^^^^^^ did you mean "Europe/Oslo"?\n'
    ) in done.stderr
    assert "\x1b" not in done.stderr
    assert "try: " in done.stderr
    by_environment = command("check", environment={"METER_GATEWAY_CONFIG": "x.yaml"})
    assert by_environment.stderr == done.stderr
    missing = command("check", "--config", "no.yaml")
    assert missing.returncode == 78
    assert "no.yaml:1:1: error: the file does not exist" in missing.stderr


def test_whoever_stops_reading_our_output_causes_no_noise(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m gateway.cli.main explain --json | head -c 10"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert len(done.stdout) == 10
    assert done.stderr == ""


def test_an_error_ends_with_what_to_try_next(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class BusyError(GatewayError):
        exit_code = 75

    @click.command()
    def busy() -> None:
        raise BusyError("the slot is taken\x1b[2J", hint="wait\x07 a little")

    monkeypatch.setattr(main.Commands, "get_command", lambda *_: busy)
    assert main.run(["busy"]) == 75
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "error: the slot is taken\\x1b[2J\n  try: wait\\x07 a little\n"


def page(mistakes: list[Mistake]) -> str:
    return click.unstyle(render(mistakes))


def test_the_caret_stands_below_the_place_on_any_line() -> None:
    long = "x" * 300 + "BAD" + "y" * 50
    lines = page([Mistake("f", 7, 301, "m", long, 3, "s")]).splitlines()
    assert lines[0] == "f:7:301: error: m"
    assert lines[1][lines[2].index("^") :][:3] == "BAD"
    assert lines[2].endswith("^^^ s")
    assert max(map(len, lines)) < 230
    control = page([Mistake("f", 1, 3, "a\x1bb", "\ta\x1bb", 1)])
    assert "\x1b" not in control
    first = page([Mistake("f", 9, 1, "twice", "b: 2", 1, other=(3, "b: 1"))]).splitlines()
    assert first[1:3] == ["   3 | b: 1", "   9 | b: 2"]
    no_line = page([Mistake("f", 1, 1, "empty", "", 1, "write something")]).splitlines()
    assert no_line[1] == "     | write something"


@pytest.fixture(params=["the folder", "the file"])
def locked(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A site whose buffer's folder, or the buffer itself, is closed to its owner."""
    config = site_in(tmp_path, "http://127.0.0.1:1/", METERS)
    config.write_text(config.read_text().replace("path: readings.db", "path: kept/readings.db"))
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "readings.db").touch()
    shut = tmp_path / "kept" if request.param == "the folder" else tmp_path / "kept/readings.db"
    shut.chmod(0)
    yield config
    shut.chmod(0o700)


@pytest.mark.parametrize(
    "arguments", [["status"], ["send", "--dry-run"], ["send", "--now"], ["export"], ["run"]]
)
def test_a_user_who_may_not_see_the_buffer_is_told_so_by_every_command(
    locked: Path, arguments: list[str]
) -> None:
    """As the folder of a systemd service is: root may look into it, others may not."""
    done = call(*arguments, "--config", locked, before=ORDINARY)
    assert done.returncode == 77, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    *_, said, hint = done.stderr.splitlines()
    assert said.startswith("error: ")
    assert f"{locked.parent}/kept/readings.db" in said
    assert hint.startswith("  try: ")
