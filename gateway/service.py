"""A well-behaved service: one instance a buffer, signals, systemd's notify and watchdog."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from gateway.errors import AlreadyRunning, NotPermitted


class InstanceLock:
    """Keeps a second gateway off the same buffer. The kernel frees it however we end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def acquire(self) -> None:
        """Take the lock and write our pid into it.

        Raises AlreadyRunning with the holder's pid, NotPermitted where the file cannot be made.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise NotPermitted(
                f"{self.path}: {error.strerror}",
                hint="the folder of the buffer must exist and be writable for this user",
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(file, 32, 0).decode("ascii", "replace").strip()
            os.close(file)
            raise AlreadyRunning(int(holder) if holder.isdecimal() else None) from None
        except OSError as error:
            os.close(file)
            raise NotPermitted(
                f"{self.path} cannot be locked: {error.strerror}",
                hint="put the buffer on a file system of this machine",
            ) from error
        self._file = file
        self._write(f"{os.getpid()}\n")

    def release(self) -> None:
        """Free the lock. The file stays: removing it would let two others lock two files."""
        if self._file is not None:
            self._write("")
            os.close(self._file)
            self._file = None

    def _write(self, text: str) -> None:
        """Say who holds it, for people; on a full disk the lock holds without."""
        assert self._file is not None
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, text.encode(), 0)

    def __enter__(self) -> InstanceLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Systemd:
    """sd_notify(3), without a library; does nothing where systemd did not start us."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._socket = environment.get("NOTIFY_SOCKET", "")
        usec = environment.get("WATCHDOG_USEC", "")
        pid = environment.get("WATCHDOG_PID", str(os.getpid()))
        ours = usec.isdecimal() and pid == str(os.getpid())
        self.watchdog: float | None = int(usec) / 1e6 if ours else None
        """Seconds within which WATCHDOG=1 is expected; None: not asked for."""

    def notify(self, *lines: str) -> None:
        """Tell systemd, for one READY=1, STATUS=…, WATCHDOG=1, STOPPING=1."""
        if not self._socket:
            return
        # A leading @ stands for the NUL of an abstract socket.
        address = "\0" + self._socket[1:] if self._socket.startswith("@") else self._socket
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out,
        ):
            out.settimeout(1)
            out.sendto("\n".join(lines).encode(), address)


def on_signals(stop: Callable[[], None], reload: Callable[[], None]) -> Callable[[], None]:
    """SIGTERM and SIGINT call `stop`, SIGHUP calls `reload`; the answer takes that back.

    Has to be called inside the running loop.
    """
    loop = asyncio.get_running_loop()
    actions = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: reload}
    for number, action in actions.items():
        loop.add_signal_handler(number, action)

    def undo() -> None:
        for number in actions:
            loop.remove_signal_handler(number)

    return undo


def leave(code: int) -> NoReturn:
    """End this process now, whatever its threads wait for. All of value is on disk or was said."""
    logging.shutdown()
    os._exit(code)
