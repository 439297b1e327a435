"""The local socket: what commands ask of a running service.

A Unix socket beside the buffer; one JSON object a line each way, one request a connection.
A request is {"do": verb, …}; an answer is {"ok": …} or {"error": text, "hint": text, "exit": n}.
No port is opened, and the socket's folder decides who may ask.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

from gateway.errors import GatewayError, NotPermitted
from gateway.logbook import log, without_secrets

MAX_LINE = 4_000_000
"""Bytes of a request or an answer: 500 meters with all their values are under a megabyte."""

PATIENCE = 10.0
"""Seconds that an asker gets to send its line, and to take the answer."""

Verb = Callable[[Mapping[str, Any]], Awaitable[Any]]
Lease = Callable[[Mapping[str, Any]], AbstractAsyncContextManager[Any]]
"""Holds for as long as the asker keeps its connection."""


class NotRunning(GatewayError):
    """Nobody listens on the socket: the service does not run."""


class RefusedByService(GatewayError):
    """The service answered with an error of its own; exit code and hint are the service's."""

    def __init__(self, message: str, *, hint: str, exit_code: int) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


def socket_path(buffer: str | Path) -> Path:
    """Where the service of this buffer listens."""
    return Path(f"{buffer}.sock")


class ControlServer:
    """Answers commands while the service runs."""

    def __init__(
        self, path: Path, verbs: Mapping[str, Verb], leases: Mapping[str, Lease] | None = None
    ) -> None:
        self._path = path
        self._verbs = verbs
        self._leases = leases or {}
        self._holding: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen. Raises NotPermitted where the socket cannot be made.

        The caller holds the instance lock, so a socket found here is left from a killed service.
        """
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._path.unlink(missing_ok=True)
            with _short(self._path) as address:
                listener.bind(address)
            self._path.chmod(0o660)
        except OSError as error:
            listener.close()
            raise NotPermitted(f"{self._path}: {error.strerror or error}") from error
        listener.setblocking(False)
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=MAX_LINE)

    async def close(self) -> None:
        """Stop listening, take back what is lent, and remove the socket."""
        for writer in self._holding:
            writer.transport.abort()
        if self._server is not None:
            self._server.close()
            self._server = None
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                line = await reader.readline()
            async with AsyncExitStack() as held:
                answer = await self._answer(line, held)
                writer.write(json.dumps(answer).encode() + b"\n")
                async with asyncio.timeout(PATIENCE):
                    await writer.drain()
                if answer.get("held"):
                    self._holding.add(writer)
                    await reader.read()  # until it goes
        except (ConnectionError, ValueError, TimeoutError):
            writer.transport.abort()  # it went away, is silent, or sent more than a line may have
        finally:
            self._holding.discard(writer)
            writer.close()

    async def _answer(self, line: bytes, held: AsyncExitStack) -> dict[str, Any]:
        try:
            request = json.loads(line)
            lease = self._leases.get(request["do"])
            verb = None if lease else self._verbs[request["do"]]
        except (ValueError, KeyError, TypeError):
            return {"error": "not a request this version knows", "hint": "", "exit": 1}
        try:
            if lease:
                return {"ok": await held.enter_async_context(lease(request)), "held": True}
            assert verb is not None
            return {"ok": await verb(request)}
        except GatewayError as error:
            said = without_secrets(str(error))
            return {"error": said, "hint": error.hint, "exit": error.exit_code}
        except Exception as error:  # the border of one request: the service goes on
            log("task.failed", task="control", error=repr(error), where=request["do"])
            said = without_secrets(repr(error))
            return {"error": said, "hint": "see the log of the service", "exit": 1}


def ask(path: Path, verb: str, *, timeout: float = 10.0, **arguments: object) -> Any:
    """Ask the running service, from a command.

    Raises NotRunning where nobody listens, NotPermitted where this user may not ask, and
    RefusedByService with the service's own message.
    """
    with hold(path, verb, timeout=timeout, **arguments) as answer:
        return answer


@contextlib.contextmanager
def hold(path: Path, verb: str, *, timeout: float = 60.0, **arguments: object) -> Iterator[Any]:
    """As `ask`; what the service lends is kept until the end of the block."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(timeout)
        try:
            with _short(path) as address:
                link.connect(address)
        except PermissionError as error:
            raise NotPermitted(
                f"{path}: you may not ask the gateway", hint="try again with sudo"
            ) from error
        except OSError as error:
            raise NotRunning(
                "the gateway does not run", hint="start it with `meter-gateway run`"
            ) from error
        try:
            link.sendall(json.dumps({"do": verb, **arguments}).encode() + b"\n")
            with link.makefile("rb") as answers:
                line = answers.readline(MAX_LINE)
            answer = json.loads(line)
        except (OSError, ValueError) as error:
            raise GatewayError(
                "the running service did not answer", hint="look at its log"
            ) from error
        if "error" in answer:
            raise RefusedByService(answer["error"], hint=answer["hint"], exit_code=answer["exit"])
        yield answer["ok"]


@contextlib.contextmanager
def _short(path: Path) -> Any:
    """The path, or one through an open folder where it is over the 107 bytes of sun_path."""
    if len(os.fsencode(path)) < 108:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
