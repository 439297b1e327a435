"""What a serial port or a TLS connection needs besides being opened."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import ssl
import termios
from collections.abc import Mapping
from typing import Any, Final

from gateway.modbus.settings import Link, SerialLink, Tls

_PTYS: Final = range(136, 144)
"""The major numbers of ptys (Linux, admin-guide/devices.txt)."""

_OF_A_PORT: Final[Mapping[int, str]] = {
    errno.ENOENT: "there is no such port",
    errno.EACCES: "this user may not open it",
    errno.EBUSY: "another program has it open",
    errno.EAGAIN: "another program has it open",
    errno.ENOTTY: "it is no serial port",
    errno.EISDIR: "it is no serial port",
    errno.EINVAL: "it does not take these settings",
}


def prepare(port: Any, link: SerialLink) -> None:
    """Make an open pyserial port ours, and quick. Raises ValueError where it cannot switch the
    direction of an RS-485 line and was told to.
    """
    with contextlib.suppress(OSError, termios.error):
        # pyserial's lock keeps other gateways out, this also those who take no lock. The kernel
        # forgets it with a port's last user, but not of a pty: only the end of its other side
        # would open that again.
        if os.major(os.fstat(port.fileno()).st_rdev) not in _PTYS:
            fcntl.ioctl(port.fileno(), termios.TIOCEXCL)
    with contextlib.suppress(OSError, ValueError, NotImplementedError):
        port.set_low_latency_mode(True)  # an FTDI adapter holds bytes back for 1 ms, not 16
    if link.rs485:
        from serial.rs485 import RS485Settings

        try:
            port.rs485_mode = RS485Settings()
        except (OSError, ValueError) as error:
            raise ValueError(
                "it cannot switch the direction of an RS-485 line: leave `rs485` out"
            ) from error


def flush(port: Any) -> None:
    """Forget what has arrived and was not read, and what was written and did not leave.

    A full output buffer would make pyserial's next write spin for ever, and closing wait.
    """
    with contextlib.suppress(OSError, ValueError, termios.error):
        termios.tcflush(port.fileno(), termios.TCIOFLUSH)


def tls_context(files: Tls | None) -> ssl.SSLContext:
    """Modbus/TCP Security v36: TLS 1.2 or newer, the server always verified.

    Raises OSError (also as ssl.SSLError) where a file cannot be used.
    """
    context = ssl.create_default_context(cafile=files.ca if files else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if files and files.certificate:
        context.load_cert_chain(files.certificate, files.key)
    return context


def why(error: BaseException, link: Link) -> str:
    """Why a port or a connection could not be opened, in words; which one is not in them."""
    number = _number(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return "TLS: " + re.sub(r"^\[.*?\] *| *\(_ssl.*\)$", "", str(error))
    if isinstance(link, SerialLink) and number in _OF_A_PORT:
        return _OF_A_PORT[number]
    said = os.strerror(number) if number > 0 else getattr(error, "strerror", None) or str(error)
    said = said[:1].lower() + said[1:]
    if number in (errno.ENOENT, errno.EACCES, errno.EISDIR):
        return f"a file under `tls`: {said}"  # a socket has no such error
    return said or type(error).__name__


def _number(error: BaseException) -> int:
    """Its errno, which pyserial and asyncio may have put into their text only; else 0."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    if isinstance(error, termios.error) and isinstance(error.args[0], int):
        return error.args[0]
    found = re.search(r"(?:\[Errno |\()(\d+)(?:\]|, ')", str(error))
    return int(found[1]) if found else 0
