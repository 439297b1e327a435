"""One line or endpoint: open, pace, ask, drain. The only file that imports pymodbus.

pymodbus carries the bytes; the rules are ours. It leaves no silence between RTU frames and takes
late answers, and answers of another function or length, for the right ones; it reports a port
that fails in five ways. So: retries and reconnects are switched off there, the silence is kept
here, a `Watch` lets only the answer asked for through to it, a timeout is followed by draining
the line (serial) or by a new connection (TCP), and every failure leaves as the error tree.
"""

from __future__ import annotations

import asyncio
import binascii
import contextlib
import fcntl
import logging
import os
import random
import ssl
import struct
import termios
from collections.abc import Callable
from typing import Any, Final

from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient
from pymodbus.exceptions import ConnectionException, ModbusIOException
from pymodbus.framer import FramerType
from pymodbus.pdu import ModbusPDU

from gateway.clock import Clock
from gateway.errors import BadAnswer, DeviceException, LinkDown, MeterTimeout
from gateway.metering.reading import Block
from gateway.modbus.frames import Request, Seen, Watch
from gateway.modbus.plan import Read, character_time, silence_time
from gateway.modbus.settings import BusSettings, SerialLink, TcpLink

# It logs frames of all clients mixed, over several lines; what matters is logged by us.
_PYMODBUS_LOG = logging.getLogger("pymodbus.logging")
_PYMODBUS_LOG.setLevel(logging.CRITICAL + 1)
_PYMODBUS_LOG.propagate = False

CONNECT_TIMEOUT: Final = 5.0
"""Seconds for a connection to come about."""
_NEVER: Final = 1 << 62  # pymodbus closes after so many failed calls; closing is ours
_DRAINS: Final = 3
"""A line that is never quiet is given up draining after this many timeouts' time."""


class _RegistersAnswer(ModbusPDU):
    """pymodbus' own class unpacks word by word; this is the same in one step."""

    function_code = 3
    rtu_byte_count_pos = 2

    def decode(self, data: bytes) -> None:
        self.registers = list(struct.unpack_from(f">{data[0] // 2}H", data, 1))

    def __str__(self) -> str:
        return "registers"


class _InputRegistersAnswer(_RegistersAnswer):
    function_code = 4


class Bus:
    """A bus asked by one task: requests never overlap, and are never cancelled half way.

    A task that is cancelled inside `read` leaves the bus closed.
    """

    def __init__(self, settings: BusSettings, clock: Clock, *, random: random.Random) -> None:
        self.settings = settings
        self._clock = clock
        self._random = random
        self._link = settings.link
        self._watch = Watch(settings.link.framing)
        self._client: Any = None
        self._lost = False
        self._heard = 0.0
        """Monotonic time at which the line was last known to be in use."""
        self._busy = 0.0
        self.character = 0.0
        self._silence = settings.pause / 1000
        if isinstance(settings.link, SerialLink):
            self.character = character_time(settings.link)
            self._silence = max(self._silence, silence_time(settings.link))

    @property
    def is_open(self) -> bool:
        """Is there a port or connection to ask over?"""
        return self._client is not None and not self._lost

    @property
    def busy(self) -> float:
        """Seconds that requests have taken, over the life of this object."""
        return self._busy

    # ------------------------------------------------------------------------------ open, close

    async def open(self) -> None:
        """Open the port or connection; nothing if it is open. Raises LinkDown."""
        if self.is_open:
            return
        await self.close()
        client = self._new_client()
        context = client.ctx
        try:
            context.is_closing = False
            # connect() would swallow why it failed.
            context.transport, _ = await asyncio.wait_for(context.call_create(), CONNECT_TIMEOUT)
        except (OSError, termios.error, ValueError, TimeoutError, ssl.SSLError) as error:
            client.close()
            raise self._link_down(error) from error
        except BaseException:
            client.close()
            raise
        self._client, self._lost = client, False
        if isinstance(self._link, SerialLink):
            self._prepare_port(context.transport.sync_serial)
        self._heard = self._clock.monotonic()
        await self._clock.until(self._heard + self.settings.pause_after_open / 1000)

    async def close(self) -> None:
        """Close the port or connection, whatever state it is in."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(OSError, termios.error):
                client.close()
            await asyncio.sleep(0)  # a TCP transport closes in the loop's next turn

    def _new_client(self) -> Any:
        link = self._link
        common: dict[str, Any] = {
            "retries": 0,
            "reconnect_delay": 0,
            "timeout": CONNECT_TIMEOUT,
            "trace_packet": self._packet,
            "trace_connect": self._connected,
        }
        if isinstance(link, SerialLink):
            client: Any = AsyncModbusSerialClient(
                link.path,
                framer=FramerType.ASCII if link.framing == "ascii" else FramerType.RTU,
                baudrate=link.baudrate,
                bytesize=link.data_bits,
                parity=link.parity[0].upper(),
                stopbits=link.stopbits,
                **common,
            )
        else:
            framer = {"rtu": FramerType.RTU, "ascii": FramerType.ASCII}
            client = AsyncModbusTcpClient(
                link.host, port=link.port, framer=framer.get(link.framing, FramerType.SOCKET),
                **common,
            )  # fmt: skip
            if link.framing == "tls":
                self._use_tls(client, link)
        client.set_max_no_responses(_NEVER)
        client.ctx.count_until_disconnect = _NEVER
        client.register(_RegistersAnswer)
        client.register(_InputRegistersAnswer)
        return client

    def _use_tls(self, client: Any, link: TcpLink) -> None:
        """Modbus/TCP Security: the frames of Modbus TCP, inside TLS that is always verified."""
        files = link.tls
        try:
            context = ssl.create_default_context(cafile=files.ca if files else None)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if files and files.certificate:
                context.load_cert_chain(files.certificate, files.key)
        except OSError as error:  # ssl.SSLError is one
            raise self._link_down(error) from error
        client.ctx.comm_params.sslctx = context
        client.ctx.init_setup_connect_listen(link.host, link.port)

    def _prepare_port(self, port: Any) -> None:
        """What makes a port ours and quick; a port that cannot do it works without."""
        quiet = contextlib.suppress(OSError, termios.error, ValueError, NotImplementedError)
        with quiet:  # pymodbus' lock keeps other gateways out, this everybody else
            fcntl.ioctl(port.fileno(), termios.TIOCEXCL)
        with quiet:  # FTDI's 16 ms become 1 ms
            port.set_low_latency_mode(True)
        if isinstance(self._link, SerialLink) and self._link.rs485:
            from serial.rs485 import RS485Settings

            try:
                port.rs485_mode = RS485Settings()
            except (OSError, ValueError) as error:
                raise LinkDown(
                    self.settings.name,
                    f"{self._link.path} cannot switch the direction of RS-485: {error}",
                    hint="leave out rs485: USB adapters switch by themselves",
                ) from error

    def _connected(self, up: bool) -> None:
        if not up:
            self._lost = True

    # -------------------------------------------------------------------------------------- ask

    async def read(self, unit: int, read: Read, *, timeout: float) -> Block:
        """Ask once. `timeout`: seconds from the end of the request to the whole answer, above
        the time that the answer itself takes on the wire.

        Raises MeterTimeout, BadAnswer, DeviceException or LinkDown. After a timeout, and after an
        answer that cannot be trusted, the line is quiet, or the connection closed, on return.
        """
        if not self.is_open:
            raise LinkDown(self.settings.name, "not open")
        await self._clock.until(self._heard + self._silence)
        began = self._clock.monotonic()
        try:
            return await self._ask(unit, read, timeout)
        except asyncio.CancelledError:
            await self.close()  # its answer must not meet the next request
            raise
        finally:
            self._busy += self._clock.monotonic() - began

    async def _ask(self, unit: int, read: Read, timeout: float) -> Block:
        client = self._client
        context = client.ctx
        self._discard()
        context.comm_params.timeout_connect = self.wire_time(read) + timeout
        method = _METHODS[read.function]
        self._unit_asked, self._read_asked = unit, read
        try:
            answer = await method(client)(read.address, count=read.count, device_id=unit)
        except (ModbusIOException, ConnectionException) as error:
            await self._failed(unit, read, timeout, error)
        if answer.isError():
            raise DeviceException(self.settings.name, unit, str(read), answer.exception_code)
        if read.function in (1, 2):
            return Block(read.function, read.address, tuple(map(int, answer.bits[: read.count])))
        return Block(read.function, read.address, tuple(answer.registers))

    async def _failed(self, unit: int, read: Read, timeout: float, error: Exception) -> None:
        """Leave the line in a known state, then say what happened."""
        seen = self._watch.seen()
        name, block = self.settings.name, str(read)
        if self._lost:
            raise LinkDown(name, "the connection was lost", hint=_hint(self._link)) from error
        if isinstance(self._link, SerialLink):
            await self._drain(timeout)
        else:
            await self.close()  # a late answer dies with its connection
        if seen in ("nothing", "echo"):
            raise MeterTimeout(name, unit, block, "no answer") from error
        raise BadAnswer(name, unit, block, _SAID[seen], reason=seen) from error

    async def _drain(self, timeout: float) -> None:
        """Until the line was quiet for as long as the unit may take to answer."""
        end = self._clock.monotonic() + _DRAINS * timeout
        quiet_until = self._heard + timeout
        while self.is_open and (now := self._clock.monotonic()) < min(quiet_until, end):
            await self._clock.sleep(min(quiet_until, end) - now)
            quiet_until = self._heard + timeout

    def _discard(self) -> None:
        """What has come since the last answer is nobody's."""
        context = self._client.ctx
        context.recv_buffer = b""
        if isinstance(self._link, SerialLink):
            with contextlib.suppress(OSError, termios.error, AttributeError):
                context.transport.sync_serial.reset_input_buffer()

    def wire_time(self, read: Read) -> float:
        """Seconds that request and answer take on the line together; 0 over TCP."""
        size = (read.count + 7) // 8 if read.function in (1, 2) else 2 * read.count
        characters = 28 + 2 * size if self._link.framing == "ascii" else 13 + size
        return characters * self.character

    def _packet(self, sending: bool, data: bytes) -> bytes:
        """pymodbus' hook: sees each packet that leaves and what has arrived since."""
        now = self._clock.monotonic()
        if not sending:
            self._heard = now
            return self._watch.arrived(data)
        self._heard = now + len(data) * self.character  # when its last bit leaves the port
        transaction = int.from_bytes(data[:2], "big")
        frame = data
        if self._link.framing == "ascii":
            frame = binascii.unhexlify(data[1:-2])[:-1]
        read = self._read_asked
        self._watch.expect(Request(self._unit_asked, read.function, read.count, transaction, frame))
        return data

    def _link_down(self, error: BaseException) -> LinkDown:
        link = self._link
        where = link.path if isinstance(link, SerialLink) else f"{link.host}:{link.port}"
        reason = (
            os.strerror(error.args[0])
            if isinstance(error, termios.error) and isinstance(error.args[0], int)
            else str(error) or type(error).__name__
        )
        if isinstance(error, TimeoutError):
            reason = f"no connection within {CONNECT_TIMEOUT:.0f} s"
        return LinkDown(self.settings.name, f"{where}: {reason}", hint=_hint(link))


_METHODS: Final[dict[int, Callable[[Any], Any]]] = {
    1: lambda client: client.read_coils,
    2: lambda client: client.read_discrete_inputs,
    3: lambda client: client.read_holding_registers,
    4: lambda client: client.read_input_registers,
}

_SAID: Final[dict[Seen, str]] = {
    "crc": "the answer was damaged on the line",
    "unit": "another unit answered",
    "function": "an answer of another function",
    "length": "an answer of another length",
    "frame": "not Modbus TCP",
}


def _hint(link: SerialLink | TcpLink) -> str:
    if isinstance(link, SerialLink):
        return "check the adapter's plug, the path, and that this user is in the group dialout"
    return "check the network, the address and the port; some devices take one client only"
