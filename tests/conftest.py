"""What every test gets: a watch on the log, free ports, a test authority, Debian's packages."""

from __future__ import annotations

import logging
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.energinet.settings import Secret
from gateway.logbook import SHORTEST, forget_repetitions
from gateway.metering.inquiry import IDENTIFICATION, SERVER_ID
from gateway.modbus.simulator import SimulatedMeter


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--short", action="store_true", help="cut the long proofs")


@pytest.fixture
def short(request: pytest.FixtureRequest) -> bool:
    """Are the long proofs cut?"""
    return bool(request.config.getoption("--short"))


class _Watch(logging.Handler):
    """Collects warnings and errors of the gateway and of asyncio."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture(autouse=True)
def expected_events() -> Iterator[Callable[..., None]]:
    """A warning or error that the test did not expect fails it.

    Call it with the names of the events that may come: `expected_events("meter.offline")`.
    """
    forget_repetitions()
    watch = _Watch()
    watched = [logging.getLogger("gateway"), logging.getLogger("asyncio")]
    for logger in watched:
        logger.addHandler(watch)
    expected: set[str] = set()
    yield lambda *names: expected.update(names)
    for logger in watched:
        logger.removeHandler(watch)
    surprises = [
        f"{record.levelname} {getattr(record, 'event', record.getMessage())} "
        f"{getattr(record, 'fields', '')}"
        for record in watch.records
        if getattr(record, "event", None) not in expected
    ]
    assert not surprises, "unexpected in the log:\n" + "\n".join(surprises)


class _Listener(logging.Handler):
    """Collects lines that hold one of these texts."""

    def __init__(self, texts: set[str]) -> None:
        super().__init__()
        self.texts = texts
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = f"{record.getMessage()} {getattr(record, 'fields', '')}"
        if any(text in line for text in self.texts):
            self.found.append(line)


@pytest.fixture(autouse=True)
def secrets_in_no_line(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A line of the log that holds a secret of the test fails it."""
    listener = _Listener(set())
    init = Secret.__init__

    def noted(secret: Secret, text: str) -> None:
        if len(text) >= SHORTEST:
            listener.texts.add(text)
        init(secret, text)

    monkeypatch.setattr(Secret, "__init__", noted)
    watched = [logging.getLogger("gateway"), logging.getLogger("asyncio")]
    for logger in watched:
        logger.addHandler(listener)
    yield
    for logger in watched:
        logger.removeHandler(listener)
    assert listener.found == []


@pytest.fixture(autouse=True)
def only_reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """P12: a simulated meter that is asked for anything but reads fails the test."""
    asked: set[tuple[int, ...]] = set()
    answer = SimulatedMeter.answer

    def recorded(meter: SimulatedMeter, pdu: bytes, at: int) -> bytes:
        asked.add(tuple(pdu[: 2 if pdu[:1] == bytes([IDENTIFICATION]) else 1]))
        return answer(meter, pdu, at)

    monkeypatch.setattr(SimulatedMeter, "answer", recorded)
    yield
    assert asked <= {(1,), (2,), (3,), (4,), (SERVER_ID,), (IDENTIFICATION, 14)}


@pytest.fixture
def free_tcp_port() -> int:
    """A port of loopback that nobody used a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def debian() -> Callable[[str, str], None]:
    """`debian("mbpoll", "mbpoll")`: skip, naming the package, where a command or file is missing.

    In CI nothing may be skipped: there it fails.
    """

    def need(what: str, package: str) -> None:
        if Path(what).exists() if what.startswith("/") else shutil.which(what):
            return
        message = f"needs Debian's package {package}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)

    return need


class Authority:
    """A certificate authority for tests; paths of PEM files."""

    def __init__(self, folder: Path) -> None:
        import trustme

        self._ca = trustme.CA()
        self._folder = folder
        self.ca = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.ca))

    def issue(self, *names: str, **more: object) -> Path:
        """A file with key and certificate chain for these host names or addresses."""
        issued = self._ca.issue_cert(*names, **more)  # type: ignore[arg-type]
        path = self._folder / f"{abs(hash((names, str(more))))}.pem"
        issued.private_key_and_cert_chain_pem.write_to_path(str(path))
        return path


@pytest.fixture
def tls_authority(tmp_path: Path) -> Authority:
    """An authority of this test's own."""
    return Authority(tmp_path)
