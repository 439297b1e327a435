"""The documentation is true: its YAML is read, its commands are run, its links lead somewhere."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
from jsonschema import Draft7Validator
from ruamel.yaml import YAML

from gateway.cli.main import COMMANDS, cli
from gateway.config import Library, identity, keys, load, profile, registers, traits
from gateway.energinet.answer import Row, row_of
from gateway.energinet.standin import StandIn
from gateway.logbook import EVENTS
from gateway.metering.register import TYPES

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md"), *ROOT.glob("deploy/**/*.md")])
BLOCK = re.compile(r"^( *)```ya?ml\n(.*?)^\1```", re.MULTILINE | re.DOTALL)

SECTION = re.compile(r"^## (\w+)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)

BASE = {
    "timezone": "timezone: Europe/Oslo\n",
    "energinet": "energinet:\n  senders: [{name: basement, token: {file: basement.token}}]\n",
    "defaults": "defaults: {every: 1 h, as: consumption}\n",
    "buses": "buses:\n  riser: {serial: riser.port}\n  plant-room: {tcp: 192.0.2.1:502}\n",
    "meters": "meters: []\n",
}


def blocks() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        text = page.read_text("utf-8")
        for match in BLOCK.finditer(text):
            line = text[: match.start()].count("\n") + 1
            found.append((f"{page.relative_to(ROOT)}:{line}", match[2]))
    return found


def completed(block: str) -> str:
    """A part of a configuration, with a plain rest around it."""
    given = set(YAML(typ="safe", pure=True).load(block))
    return block + "\n" + "".join(text for key, text in BASE.items() if key not in given)


@pytest.mark.parametrize(("place", "block"), blocks(), ids=[place for place, _ in blocks()])
def test_a_block_of_the_documentation_is_sound(place: str, block: str, tmp_path: Path) -> None:
    if re.search(r"^(maker|extends):", block, re.MULTILINE):
        path = tmp_path / "documented.yaml"
        path.write_text(block, "utf-8")
        checked = Library().check(path)
        assert checked.profile.quantities(), place
        assert checked.warnings == (), place
        return
    (tmp_path / "profiles").mkdir()
    (tmp_path / "gateway.yaml").write_text(completed(block), "utf-8")
    assert load(tmp_path / "gateway.yaml", environment={}, tokens=False), place


def test_the_page_of_the_configuration_names_every_key() -> None:
    page = (ROOT / "docs/reference/configuration.md").read_text("utf-8")
    known = {*keys.BELONGS, *keys.DEFAULTS, *keys.TLS, *keys.PROXY}
    assert [key for key in sorted(known) if not re.search(rf"\b{key}\b", page)] == []


def defaults() -> dict[str, dict[str, str]]:
    """Section, or kind of bus, to the defaults that the page of the configuration shows."""
    page = (ROOT / "docs/reference/configuration.md").read_text("utf-8")
    found: dict[str, dict[str, str]] = {}
    for head, body in re.findall(r"^## ([\w, ]+)\n(.*?)(?=^## |\Z)", page, re.M | re.S):
        for key, default in re.findall(r"^\| `([\w.]+)` \| `([^`]+)` \|", body, re.M):
            section, _, name = key.rpartition(".")
            kinds = {"buses": {"serial": keys.SERIAL, "tcp": keys.TCP, "both": keys.BUS}}
            for kind, known in kinds.get(head, {section or head: (name,)}).items():
                if name in known and not (name == "framing" and kind == "both"):
                    found.setdefault(kind, {}).setdefault(name, default)
    found["tcp"]["framing"] = "tcp"
    found["serial"]["framing"] = "rtu"
    return found


def test_a_key_that_is_left_out_has_the_default_that_the_page_shows(tmp_path: Path) -> None:
    shown = defaults()
    for section, some in {
        "energinet": {"url", "timestamps", "label", "linger", "request_interval", "max_payload"},
        "buffer": {"path", "keep", "max_size"},
        "clock": {"assume_synchronised"},
        "log": {"format", "level"},
        "serial": {"echo", "rs485"},
        "tcp": {"disconnect"},
        "both": {"poll", "timeout", "retries", "pause", "pause_after_open"},
        "meters": {"multiplier"},
        "defaults": {"gap"},
    }.items():
        assert some <= shown[section].keys(), section
    read = []
    for given in ({}, shown):

        def part(*names: str, given: dict[str, dict[str, str]] = given) -> str:
            return "".join(f", {k}: {v}" for name in names for k, v in given.get(name, {}).items())

        (tmp_path / "gateway.yaml").write_text(f"""\
timezone: Europe/Oslo
energinet: {{senders: [{{name: basement, token: {{credential: basement}}}}]{part("energinet")}}}
defaults: {{every: 1 h, as: counter{part("defaults")}}}
buses:
  riser: {{serial: riser.port{part("serial", "both")}}}
  plant-room: {{tcp: "192.0.2.1:502"{part("tcp", "both")}}}
meters:
  - name: main-supply
    bus: riser
    unit: 1
    profile: eastron-sdm630
    send: [{{meterID: "7", quantity: active_energy_import_total}}]
    sender: basement{part("meters").replace(", ", chr(10) + "    ")}
{"".join(f"{name}: {{{part(name)[2:]}}}" + chr(10) for name in ("buffer", "clock", "log") if given)}
""")
        read.append(load(tmp_path / "gateway.yaml", environment={}, tokens=False).config)
    assert read[0] == read[1]


def test_the_page_of_profiles_names_every_key_and_type() -> None:
    page = (ROOT / "docs/reference/profiles.md").read_text("utf-8")
    known = {*profile.KEYS, *traits.REQUESTS, *traits.SERIAL, *traits.SUNSPEC, *profile.COMPUTED}
    known |= {*registers.REGISTER, *identity.IDENTITY, *registers.UNIT_REGISTER, *TYPES}
    assert [key for key in sorted(known) if not re.search(rf"\b{key}\b", page)] == []


def options(command: click.Command, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(command, click.Group):
        for inner in command.list_commands(click.Context(command)):
            found = command.get_command(click.Context(command), inner)
            assert found is not None
            yield from options(found, name)
    else:
        for parameter in command.params:
            yield from ((name, option) for option in parameter.opts if option.startswith("--"))


def test_the_page_of_commands_names_every_option_in_the_section_of_its_command() -> None:
    page = (ROOT / "docs/reference/commands.md").read_text("utf-8")
    sections = {match[1]: match[2] for match in SECTION.finditer(page)}
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        for _, option in options(command, name):
            shown = page if option == "--config" else sections[name] + sections.get("", "")
            known = option in shown or (name == "profiles" and option == "--json")
            assert known, f"{name} {option} is not documented"


def test_the_page_of_commands_names_every_command_and_no_other() -> None:
    page = (ROOT / "docs/reference/commands.md").read_text("utf-8")
    named = {match[1] for match in re.finditer(r"^\| `(\w+)", page, re.MULTILINE)}
    assert named == set(COMMANDS)


def test_the_schemas_accept_what_is_documented() -> None:

    folder = Path(profile.__file__).parent / "schemas"
    for place, block in blocks():
        is_profile = re.search(r"^(maker|extends):", block, re.MULTILINE)
        name, text = ("profile", block) if is_profile else ("gateway", completed(block))
        schema = json.loads((folder / f"{name}.schema.json").read_text("utf-8"))
        data = json.loads(json.dumps(YAML(typ="safe", pure=True).load(text)))
        errors = [error.message for error in Draft7Validator(schema).iter_errors(data)]
        assert errors == [], place


# ------------------------------------------------------------------------------- links and names

LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
SOURCES = sorted([*ROOT.glob("gateway/**/*.py"), *ROOT.glob("deploy/*")])


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    heads = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in LINK.findall(page.read_text("utf-8")):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_relative_to(ROOT), link
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_can_be_reached_from_the_index() -> None:
    index = ROOT / "docs/README.md"
    linked = {(index.parent / link).resolve() for link in LINK.findall(index.read_text("utf-8"))}
    assert {page for page in PAGES if page.is_relative_to(ROOT / "docs")} - linked == {index}


def test_decisions_are_numbered_without_a_gap() -> None:
    pages = sorted(ROOT.glob("docs/decisions/*.md"))
    assert [page.name[:4] for page in pages] == [f"{n:04}" for n in range(1, len(pages) + 1)]
    for page in pages:
        head = page.read_text("utf-8").splitlines()[0]
        assert head.startswith(f"# {int(page.name[:4])}. "), page.name


def test_each_library_at_run_time_has_its_reason() -> None:
    listed = (ROOT / "pyproject.toml").read_text().partition("\ndependencies = [")[2]
    names = re.findall(r'^    "([\w.-]+?)[>"]', listed.partition("\n]")[0], re.MULTILINE)
    page = (ROOT / "docs/decisions/0003-libraries.md").read_text("utf-8").lower()
    assert len(names) > 5
    assert [name for name in names if f"\n| {name}" not in page] == []


def made_by(name: str) -> ModuleType:
    """The program that prints a page of the reference."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/reference/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_events_is_what_the_logbook_says() -> None:
    page = (ROOT / "docs/reference/events.md").read_text("utf-8")
    assert page == made_by("events").page(), "make docs"


def test_the_page_of_what_is_missing_has_every_reason_that_the_gateway_knows() -> None:
    page = (ROOT / "docs/reference/missing.md").read_text("utf-8")
    assert page == made_by("missing").page(), "make docs"


def test_the_page_of_answers_has_a_row_for_each_and_names_real_events() -> None:
    page = (ROOT / "docs/reference/answers.md").read_text("utf-8")
    assert set(re.findall(r"`(upload\.\w+)`", page)) <= EVENTS.keys()
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| ")][1:]
    for status in (200, 302, 400, 401, 403, 404, 405, 409, 413, 422, 429, 500):
        text = {2: "2xx", 3: "3xx", 5: "5xx"}.get(status // 100, str(status))
        assert any(text in row for row in rows), status
    assert len(
        {row_of(status) for status in (200, 302, 400, 401, 404, 409, 413, 429, 500)}
    ) + 1 == len(Row)


# -------------------------------------------------------------------------------------- commands

CONSOLE = re.compile(r"^( *)```console\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
QUOTED = re.compile(r"`(?:sudo )?meter-gateway ([^`]*)`")
KNOWN = {
    "apt-get", "chown", "git", "install", "journalctl", "ls", "nano", "printf", "reboot", "rm",
    "systemctl", "tar", "tee", "usermod",
}  # fmt: skip
"""Programs of the system that the documentation uses; what they do is not tested here."""


def documented() -> list[tuple[str, str]]:
    """Every command line of the documentation, with its place."""
    found = []
    for page in PAGES:
        text = page.read_text("utf-8")
        for match in CONSOLE.finditer(text):
            start = text[: match.start(2)].count("\n") + 1
            for number, line in enumerate(match[2].splitlines(), start):
                if line.strip().startswith("$ "):
                    found.append((f"{page.relative_to(ROOT)}:{number}", line.strip()[2:]))
    return found


def programs(line: str) -> Iterator[list[str]]:
    """The programs of one line, each with its arguments; redirections are left out."""
    words: list[str] = []
    reader = shlex.shlex(line, posix=True, punctuation_chars=True)
    reader.whitespace_split = True
    skip = False
    for word in reader:
        if word in ("|", "&&", ";"):
            yield words
            words = []
        elif word in (">", ">>", "<"):
            skip = True
        elif skip:
            skip = False
        elif word != "sudo" or words:
            words.append(word)
    yield words


def understood(arguments: list[str]) -> None:
    """Raises what click raises where a command or an option is not known."""
    context, command = click.Context(cli), cli.get_command(click.Context(cli), arguments[0])
    rest = arguments[1:]
    assert command is not None, f"no command {arguments[0]}"
    if isinstance(command, click.Group) and rest:
        context = click.Context(command)
        inner = command.get_command(context, rest[0])
        assert inner is not None, f"no command {' '.join(arguments[:2])}"
        command, rest = inner, rest[1:]
    if isinstance(command, click.Group):
        return
    command.make_context(command.name, list(rest), parent=context)


@pytest.mark.parametrize(("place", "line"), documented(), ids=[place for place, _ in documented()])
def test_every_documented_command_exists_with_its_options(
    place: str, line: str, debian: Callable[[str, str], None]
) -> None:
    subprocess.run(["bash", "-n", "-c", line], check=True)
    for program, *arguments in programs(line):
        if program == "meter-gateway":
            understood(arguments)
        elif program == "make":
            debian("make", "make")
            made = [word for word in arguments if "=" not in word]
            subprocess.run(["make", "-n", *made], cwd=ROOT, capture_output=True, check=True)
        elif "/" in program:
            assert os.access(ROOT / program, os.X_OK), f"{place}: {program}"
        else:
            assert program in KNOWN, f"{place}: {program}"


def test_every_command_named_in_a_text_exists_with_its_options() -> None:
    """In the documentation, in hints and in what the log says to do."""
    checked = 0
    for source in [*PAGES, *SOURCES]:
        for text in QUOTED.findall(source.read_text("utf-8")):
            words = shlex.split(text.replace("\n", " "))
            if not words or words[0].isupper() or "…" in text:
                continue
            try:
                understood(words)
            except click.MissingParameter:
                pass  # named without its arguments
            except (AssertionError, click.UsageError) as error:
                pytest.fail(f"{source.relative_to(ROOT)}: meter-gateway {text}: {error}")
            checked += 1
    assert checked > 30


# ------------------------------------------------------------------------------ commands, for real

NOT_RUN = {"run", "demo", "simulate"}
"""They go on until they are ended; this test runs the first and the last, others the demo."""
ENDS = {"read": {0, 3}, "send": {0, 3, 75}, "verify": {0, 1}, "resend": {0, 1}}
"""Exit codes that may come; 0 alone for all others."""


@contextmanager
def process(folder: Path, *arguments: str, until: str) -> Iterator[None]:
    """A command that goes on; from when it has said `until`."""
    name = folder / f"{arguments[0]}.log"
    with (
        name.open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", "gateway.cli.main", *arguments],
            cwd=folder, stdout=log, stderr=log, env=environment(folder),
        ) as running,
    ):  # fmt: skip
        try:
            deadline = time.monotonic() + 60
            while until not in name.read_text():
                assert running.poll() is None, name.read_text()
                assert time.monotonic() < deadline, name.read_text()
                time.sleep(0.05)
            yield
        finally:
            running.send_signal(signal.SIGTERM)
            assert running.wait(30) == 0, name.read_text()


def environment(folder: Path) -> dict[str, str]:
    own = {"METER_GATEWAY_CONFIG": "gateway.yaml", "PYTHONUNBUFFERED": "1"}
    return {**os.environ, **own, "PATH": f"{folder}/bin:{os.environ['PATH']}"}


def at_work(folder: Path, url: str, port: int) -> None:
    """A site with the names that the documentation uses; `meter-gateway` and `sudo` on its path."""
    (folder / "bin").mkdir()
    for name, does in (
        ("meter-gateway", f'exec {sys.executable} -m gateway.cli.main "$@"'),
        ("sudo", 'exec "$@"'),
    ):
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{does}\n")
        (folder / "bin" / name).chmod(0o755)
    (folder / "basement.token").write_text("documented\n")
    (folder / "basement.token").chmod(0o600)
    (folder / "gateway.yaml").write_text(f"""\
timezone: Europe/Oslo
energinet:
  url: {url}
  request_interval: 5 s
  linger: 1 s
  senders: [{{name: basement, token: {{file: basement.token}}}}]
defaults: {{every: 5 s, as: counter}}
clock: {{assume_synchronised: true}}
buffer: {{path: readings.db}}
buses:
  riser: {{serial: riser.port, poll: 10 s}}
  plant-room: {{tcp: "127.0.0.1:{port}", poll: 10 s}}
meters:
  - name: main-supply
    bus: riser
    unit: 1
    profile: eastron-sdm630
    send: [{{meterID: "7777777777", quantity: active_energy_import_total}}]
  - name: ventilation
    bus: plant-room
    unit: 1
    profile: carlo-gavazzi-em24-e1
    send: [{{meterID: "7777777778", quantity: active_energy_import_total}}]
""")
    (own,) = (block for place, block in blocks() if "\nmodel: E1\n" in block)
    (folder / "my-meter.yaml").write_text(own, "utf-8")


@pytest.mark.timeout(500)  # dozens of processes, one after the other
async def test_every_documented_command_works_on_a_running_gateway(
    tmp_path: Path, free_tcp_port: int
) -> None:
    standin = StandIn({"documented": "basement"}, window=5_000, zone="Europe/Oslo")
    at_work(tmp_path, await standin.start(), free_tcp_port)
    try:
        await asyncio.to_thread(run_all, tmp_path)
    finally:
        await standin.stop()
    assert standin.violations == []


def run_all(folder: Path) -> None:
    lines = dict.fromkeys(
        line for _, line in documented() if re.match(r"(sudo )?meter-gateway ", line)
    )
    assert len(lines) > 10
    with (
        process(folder, "simulate", until="serving"),
        process(folder, "run", until="upload.sent"),
    ):
        for line in lines:
            (_, name, *_), *_ = programs(line)
            if name in NOT_RUN:
                continue
            done = subprocess.run(
                ["bash", "-c", line], cwd=folder, capture_output=True, text=True,
                stdin=subprocess.DEVNULL, env=environment(folder), timeout=60, check=False,
            )  # fmt: skip
            assert done.returncode in ENDS.get(name, {0}), f"{line}\n{done.stdout}{done.stderr}"
            assert "Traceback" not in done.stderr, done.stderr
        documented_fields(folder)


def documented_fields(folder: Path) -> None:
    """What scripts get is what the page of commands says."""
    page = (ROOT / "docs/reference/commands.md").read_text("utf-8")
    sections = {match[1]: match[2] for match in SECTION.finditer(page)}
    for name, *rest in (
        ("status", "--json"),
        ("read", "main-supply", "--once", "--json"),
        ("send", "--dry-run", "--json"),
        ("check", "--json"),
        ("scan", "plant-room", "--units", "1", "--json"),
        ("registers", "riser", "1", "--function", "4", "--address", "342", "--json"),
        ("verify", "main-supply", "frequency", "50.0", "--json"),
    ):
        done = subprocess.run(
            ["meter-gateway", name, *rest], cwd=folder, capture_output=True, text=True,
            env=environment(folder), timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        said = set(re.findall(r'"(\w+)"', sections[name]))
        assert sorted(fields(json.loads(done.stdout)) - said) == [], name


def fields(value: Any) -> set[str]:
    """The names in a JSON document, but for those that are data: reasons and meterIDs."""
    if isinstance(value, list):
        return {name for one in value for name in fields(one)}
    if not isinstance(value, dict):
        return set()
    data = ("dropped", "errors", "faults", "missing")
    inner = {name: one for name, one in value.items() if name not in data}
    return value.keys() | {name for one in inner.values() for name in fields(one)}
