"""What a port is opened with, and what is said of one that cannot be opened."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from serial import Serial, SerialException

from gateway.modbus.ports import why
from gateway.modbus.settings import SerialLink, TcpLink
from tests.modbus.lines import at_once, line
from tests.ordinary import ORDINARY

ROOT = Path(__file__).parents[2]
OPENS = """
import asyncio, random, sys
from gateway.clock import SystemClock
from gateway.modbus.bus import Bus
from gateway.modbus.settings import BusSettings, SerialLink
async def main():
    bus = Bus(BusSettings("riser", SerialLink(sys.argv[1])), SystemClock(), random=random.Random())
    await bus.open()
    print("open", flush=True)
    sys.stdin.readline()
    await bus.close()
asyncio.run(main())
"""


def test_a_pty_can_be_opened_again_by_an_ordinary_user_though_its_gateway_was_killed() -> None:
    """The kernel keeps TIOCEXCL on a pty for as long as its other side is there."""
    opens = [*ORDINARY, sys.executable, "-c", OPENS]
    with line(at_once) as served:
        for end in (subprocess.Popen.kill, subprocess.Popen.communicate, subprocess.Popen.kill):
            with subprocess.Popen(
                [*opens, served.path],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            ) as one:  # fmt: skip
                assert one.stdout is not None
                assert one.stdout.readline() == "open\n"
                end(one)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/dev/none", "there is no such port"),
        ("/dev", "it is no serial port"),
        ("/etc/hostname", "it is no serial port"),
    ],
)
def test_why_a_port_cannot_be_opened_is_said_in_words(path: str, words: str) -> None:
    with pytest.raises(SerialException) as caught:
        Serial(path, exclusive=True)
    assert why(caught.value, SerialLink(path)) == words


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(111, "Connect call failed ('::1', 502)"), "connection refused"),
        (OSError(113, "Connect call failed ('10.0.0.9', 502)"), "no route to host"),
        # What asyncio makes of a name with several addresses.
        (OSError("Multiple exceptions: [Errno 111] Connect call failed ('::1', 502, 0, 0),"
                 " [Errno 111] Connect call failed ('127.0.0.1', 502)"), "connection refused"),
        (socket.gaierror(-2, "Name or service not known"), "name or service not known"),
        (FileNotFoundError(2, "No such file or directory"),
         "a file under `tls`: no such file or directory"),
        (ssl.SSLError(1, "[SSL] tlsv1 alert (_ssl.c:1)"), "TLS: "),
        (ValueError("baud rate 7 is odd"), "baud rate 7 is odd"),
        (OSError(), "OSError"),
    ],
)  # fmt: skip
def test_why_a_connection_cannot_be_opened_is_said_in_words(error: OSError, words: str) -> None:
    said = why(error, TcpLink("127.0.0.1"))
    assert said.startswith(words)
    assert "Errno" not in said


def test_a_port_that_refuses_to_be_set_is_said_in_words() -> None:
    link = SerialLink("/dev/ttyUSB0")
    assert why(termios.error(22, "Invalid argument"), link) == "it does not take these settings"
    assert why(termios.error(5, "Input/output error"), link) == "input/output error"
    assert why(PermissionError(13, "x"), link) == "this user may not open it"
    assert why(OSError(16, "x"), link) == "another program has it open"
