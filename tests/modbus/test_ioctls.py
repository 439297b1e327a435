"""What a pty refuses: what a port is asked for instead, byte by byte, as the kernel documents it.

The port is a pty, but its parity, low latency, RS-485 direction and exclusive use are those of a
UART that records what it is asked for. No such hardware was at hand: docs/reference/not-proved.md.
"""

from __future__ import annotations

import fcntl
import os
import random
import struct
import subprocess
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field

from gateway.clock import SystemClock
from gateway.config import Library
from gateway.errors import LinkDown
from gateway.modbus import ports
from gateway.modbus.bus import Bus
from gateway.modbus.plan import Read
from gateway.modbus.served import SimulatedLine, wall
from gateway.modbus.settings import BusSettings, SerialLink
from gateway.modbus.simulator import SimulatedMeter
from tests.modbus.lines import at_once, line

# <asm-generic/ioctls.h>
TIOCEXCL, TIOCGSERIAL, TIOCSSERIAL = 0x540C, 0x541E, 0x541F
TIOCGRS485, TIOCSRS485 = 0x542E, 0x542F
# <linux/tty_flags.h>; `flags` of struct serial_struct in <linux/serial.h>
ASYNC_LOW_LATENCY, FLAGS_AT = 1 << 13, 16
# struct serial_rs485 in <linux/serial.h>: flags, delay before and after sending (ms), and more
RS485_ENABLED, RTS_ON_SEND, RTS_AFTER_SEND, RX_DURING_TX = 1 << 0, 1 << 1, 1 << 2, 1 << 4
RS485_BYTES = 32
# <asm-generic/termbits.h>, `c_cflag`
CSIZE, CS7, CS8, CSTOPB, PARENB, PARODD = 0o60, 0o40, 0o60, 0o100, 0o400, 0o1000
SPEED = {9600: 0o15, 19200: 0o16, 115200: 0o10002}

SET_BEFORE = bytes(range(1, 73))
"""What the UART's struct serial_struct holds: all but one bit of it is none of our business."""
DELAYED = struct.pack("=8I", RTS_AFTER_SEND | RX_DURING_TX, 3, 4, 5, 6, 7, 8, 9)
"""And its struct serial_rs485, as a device tree may have set it."""


@define
class Uart:
    """Takes what a pty refuses, and remembers it."""

    asked: list[tuple[int, bytes]] = field(factory=list)
    """Codes and what came with them, of what was set."""
    set: list[list[Any]] = field(factory=list)
    """What each tcsetattr was given."""
    refuses: tuple[int, ...] = ()
    _ioctl: Any = fcntl.ioctl
    _tcsetattr: Any = termios.tcsetattr

    def ioctl(self, fd: Any, code: int, argument: Any = 0, *more: Any) -> Any:
        if code in self.refuses:
            raise OSError(25, os.strerror(25))
        held = {TIOCGSERIAL: SET_BEFORE, TIOCGRS485: DELAYED}.get(code)
        if held is not None:
            memoryview(argument).cast("B")[: len(held)] = held
        elif code in (TIOCSSERIAL, TIOCSRS485, TIOCEXCL):
            self.asked.append((code, bytes(memoryview(argument)) if argument else b""))
        else:
            return self._ioctl(fd, code, argument, *more)
        return 0

    def tcsetattr(self, fd: Any, when: int, attributes: list[Any]) -> None:
        self.set.append(list(attributes))
        taken = list(attributes)
        taken[2] = taken[2] & ~(CSIZE | PARENB | PARODD) | CS8  # as a pty can have it
        self._tcsetattr(fd, when, taken)

    def given(self, code: int) -> list[bytes]:
        """What came with each request of a kind."""
        return [data for asked, data in self.asked if asked == code]


@pytest.fixture
def uart(monkeypatch: pytest.MonkeyPatch) -> Iterator[Uart]:
    """Every port is such a one."""
    uart = Uart()
    monkeypatch.setattr(fcntl, "ioctl", uart.ioctl)
    monkeypatch.setattr(termios, "tcsetattr", uart.tcsetattr)
    monkeypatch.setattr(ports, "_PTYS", ())
    return uart


async def asked_over(**more: Any) -> None:
    """Open a port with these settings, and read over it."""
    with line(at_once, size=17 if more.get("framing") == "ascii" else 8) as served:
        link = SerialLink(served.path, **more)
        bus = Bus(BusSettings("riser", link), SystemClock(), random=random.Random(1))
        await bus.open()
        try:
            if link.framing == "rtu":
                assert (await bus.read(1, Read(3, 7, 1), timeout=2)).words == (7,)
        finally:
            await bus.close()


async def test_an_adapter_is_told_not_to_hold_bytes_back_and_all_else_of_it_stays(
    uart: Uart,
) -> None:
    await asked_over()
    (told,) = uart.given(TIOCSSERIAL)
    (before,) = struct.unpack_from("=i", SET_BEFORE, FLAGS_AT)
    (flags,) = struct.unpack_from("=i", told, FLAGS_AT)
    assert before & ASYNC_LOW_LATENCY == 0
    assert flags == before | ASYNC_LOW_LATENCY
    assert told[:FLAGS_AT] == SET_BEFORE[:FLAGS_AT]
    assert told[FLAGS_AT + 4 : len(SET_BEFORE)] == SET_BEFORE[FLAGS_AT + 4 :]


async def test_a_port_that_knows_no_low_latency_or_exclusive_use_is_used_all_the_same(
    uart: Uart,
) -> None:
    uart.refuses = (TIOCGSERIAL, TIOCEXCL)
    await asked_over()
    assert not uart.asked


async def test_an_adapter_that_holds_bytes_back_for_16_ms_is_read_all_the_same() -> None:
    """As FTDI's do where that cannot be switched off; on a line whose meter is strict."""
    meter = SimulatedMeter(Library(None).get("eastron-sdm630"), 1, wall())
    line = SimulatedLine([meter], SerialLink("", 9600), latency=0.016, fifo=62, strict=True)
    link = SerialLink(line.open(), 9600)
    bus = Bus(BusSettings("riser", link), SystemClock(), random=random.Random(1))
    await bus.open()
    try:
        for count in (2, 4, 6, 12, 30, 2, 30):
            assert len((await bus.read(1, Read(4, 0, count), timeout=2)).words) == count
    finally:
        await bus.close()
        line.close()
    assert (line.requests, line.ignored) == (7, 0)


async def test_the_kernel_switches_the_direction_only_where_that_is_asked_for(uart: Uart) -> None:
    await asked_over()
    assert not uart.given(TIOCSRS485)
    await asked_over(rs485=True)
    (told,) = uart.given(TIOCSRS485)
    flags, *rest = struct.unpack("=8I", told)
    assert len(told) == RS485_BYTES
    assert flags == RS485_ENABLED | RTS_ON_SEND  # driven while sending, and our own bytes not heard
    assert rest == [3, 4, 5, 6, 7, 8, 9]  # delays are the board's


async def test_a_port_that_cannot_switch_the_direction_is_not_used_and_says_so(uart: Uart) -> None:
    uart.refuses = (TIOCGRS485,)
    with pytest.raises(LinkDown, match="cannot switch the direction of an RS-485 line"):
        await asked_over(rs485=True)
    uart.refuses = ()
    await asked_over(rs485=True)  # it was closed, and is free


async def test_a_port_is_kept_from_all_other_programs(uart: Uart) -> None:
    await asked_over()
    assert uart.given(TIOCEXCL) == [b""]


@pytest.mark.parametrize(
    ("more", "bits"),
    [
        ({}, CS8),
        ({"parity": "even"}, CS8 | PARENB),
        ({"parity": "odd"}, CS8 | PARENB | PARODD),
        ({"stopbits": 2}, CS8 | CSTOPB),
        ({"parity": "odd", "stopbits": 2}, CS8 | CSTOPB | PARENB | PARODD),
        ({"framing": "ascii", "parity": "even"}, CS7 | PARENB),
        ({"framing": "ascii", "stopbits": 2}, CS7 | CSTOPB),
        ({"framing": "ascii"}, CS8),
    ],
    ids=lambda one: " ".join(map(str, one.values())) if isinstance(one, dict) else oct(one),
)
@pytest.mark.parametrize("baudrate", SPEED)
async def test_parity_and_bits_of_a_character_are_those_of_the_configuration(
    uart: Uart, more: dict[str, Any], bits: int, baudrate: int
) -> None:
    await asked_over(baudrate=baudrate, **more)
    assert uart.set
    for attributes in uart.set:
        iflag, _, cflag, _, ispeed, ospeed, _ = attributes
        assert cflag & (CSIZE | CSTOPB | PARENB | PARODD) == bits
        assert ispeed == ospeed == SPEED[baudrate]
        assert not iflag & (termios.IXON | termios.IXOFF | termios.ICRNL | termios.ISTRIP)


def test_these_numbers_are_those_of_the_kernels_headers(
    tmp_path: Path, debian: Callable[[str, str], None]
) -> None:
    debian("gcc", "gcc libc6-dev")
    numbers = {
        "TIOCEXCL": TIOCEXCL,
        "TIOCGSERIAL": TIOCGSERIAL,
        "TIOCSSERIAL": TIOCSSERIAL,
        "TIOCGRS485": TIOCGRS485,
        "TIOCSRS485": TIOCSRS485,
        "ASYNC_LOW_LATENCY": ASYNC_LOW_LATENCY,
        "offsetof(struct serial_struct, flags)": FLAGS_AT,
        "SER_RS485_ENABLED": RS485_ENABLED,
        "SER_RS485_RTS_ON_SEND": RTS_ON_SEND,
        "SER_RS485_RTS_AFTER_SEND": RTS_AFTER_SEND,
        "SER_RS485_RX_DURING_TX": RX_DURING_TX,
        "sizeof(struct serial_rs485)": RS485_BYTES,
        "offsetof(struct serial_rs485, delay_rts_before_send)": 4,
        "CSIZE": CSIZE,
        "CS7": CS7,
        "CS8": CS8,
        "CSTOPB": CSTOPB,
        "PARENB": PARENB,
        "PARODD": PARODD,
        **{f"B{baud}": speed for baud, speed in SPEED.items()},
    }
    says = "".join(
        f'_Static_assert({name} == {value}, "{name}");\n' for name, value in numbers.items()
    )
    program = tmp_path / "numbers.c"
    program.write_text(
        "#include <stddef.h>\n#include <asm/ioctls.h>\n#include <asm/termbits.h>\n"
        "#include <linux/serial.h>\n" + says
    )
    made = subprocess.run(
        ["gcc", "-fsyntax-only", str(program)], capture_output=True, text=True, check=False
    )
    assert not made.returncode, made.stderr
