"""One line or endpoint: open, pace, ask, drain. The only file that imports pymodbus.

pymodbus carries the bytes; the rules are ours. It leaves no silence between RTU frames and takes
late answers, and answers of another function or length, for the right ones; it reports a port
that fails in five ways. So: retries and reconnects are switched off there, the silence is kept
here, a `Watch` lets only the answer asked for through to it, a timeout is followed by quiet (on
a line) or by a new connection (TCP), and every failure leaves as the error tree.
"""

from __future__ import annotations

import asyncio
import binascii
import contextlib
import logging
import random
import struct
import termios
import traceback
from collections import deque
from typing import Any, Final

from attrs import frozen
from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient
from pymodbus.exceptions import ConnectionException, ModbusIOException
from pymodbus.framer import FramerType
from pymodbus.pdu import ModbusPDU

from gateway.clock import Clock
from gateway.errors import BadAnswer, DeviceException, LinkDown, MeterTimeout
from gateway.metering.inquiry import SERVER_ID, Inquiry, Told, plain
from gateway.metering.reading import Block
from gateway.modbus.frames import Request, Seen, Watch, objects_in, overheard
from gateway.modbus.health import LATEST_ANSWER
from gateway.modbus.line import Overheard
from gateway.modbus.plan import Question, Read, character_time, silence_time
from gateway.modbus.ports import flush, prepare, tls_context, why
from gateway.modbus.settings import SERIAL_HINT, TCP_HINT, BusSettings, SerialLink

# It logs frames of all clients mixed, over several lines; what matters is logged by us.
_PYMODBUS_LOG = logging.getLogger("pymodbus.logging")
_PYMODBUS_LOG.setLevel(logging.CRITICAL + 1)
_PYMODBUS_LOG.propagate = False

CONNECT_TIMEOUT: Final = 5.0
"""Seconds for a connection to come about."""
_NEVER: Final = 1 << 62  # pymodbus closes after so many failed calls; closing is ours
_DRAINS: Final = 3
"""A line that is never quiet is given up draining after this many timeouts' time."""
_SLACK: Final = 0.01  # seconds that a busy machine may be late to end a wait
_AT_LEAST: Final = 0.9  # of a timeout is left to the unit, however long its frames take
_REMEMBERED: Final = 20  # frames that nobody waited for
_MOST_REQUESTS: Final = 5  # for an object of 43/14, where a device says that more follow
_BUFFER: Final = 1024
"""Bytes of one wait for an answer: the longest, in ASCII, has 513; the rest is for noise."""


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


class _IdentificationAnswer(ModbusPDU):
    """pymodbus' own class trusts the lengths in it; this leaves them to us."""

    function_code = 43
    told = b""

    def decode(self, data: bytes) -> None:
        self.told = bytes(data)

    @classmethod
    def calculateRtuFrameSize(cls, data: bytes) -> int:  # noqa: N802
        return len(data)  # the watch lets whole frames through

    def __str__(self) -> str:
        return "texts"


class _ServerIdAnswer(_IdentificationAnswer):
    function_code = SERVER_ID


@frozen
class _Drain:
    """The silence to wait for after a request of a unit failed."""

    unit: int
    seconds: float
    """Before it is asked again itself."""
    for_others: float
    """Before another one is, whose answer would not be taken for its own."""
    since: float
    """From when on they count."""
    end: float
    """When to give it up."""

    def of(self, unit: int) -> tuple[float, float, float]:
        """Seconds of silence before that unit is asked, since when, and when to give it up."""
        seconds = self.seconds if unit == self.unit else self.for_others
        return seconds, self.since, self.end


_NO_DRAIN: Final = _Drain(-1, 0.0, 0.0, 0.0, 0.0)


class Bus:
    """A bus asked by one task: requests never overlap.

    A request is not to be cancelled; where its task is, the bus is closed.
    """

    def __init__(self, settings: BusSettings, clock: Clock, *, random: random.Random) -> None:
        self.settings = settings
        self._clock = clock
        self._random = random
        self._link = settings.link
        self._watch = Watch(settings.link.framing)
        self._client: Any = None
        self._lost = False
        self._asked: tuple[int, Question] | None = None
        """The request under way."""
        self._verdict: Seen = "nothing"
        self._sent = 0.0
        """When the last bit of the last request left."""
        self._heard = 0.0
        """When the line was last known to be in use."""
        self._drain = _NO_DRAIN
        self._unasked = b""
        """What came while nothing was asked."""
        self._missed: dict[int, float] = {}
        """Units whose answer did not come in time, and when it was given up."""
        self.overheard: deque[Overheard] = deque(maxlen=_REMEMBERED)
        self.busy = 0.0
        """Seconds that requests have taken, with the silence before each, since this was made."""
        self.turnaround = 0.0
        """Seconds between the end of the last request and the start of its answer."""
        self.character = 0.0
        self._silence = settings.pause / 1000
        self._over_socket = not isinstance(settings.link, SerialLink)
        self._hears_itself = isinstance(settings.link, SerialLink) and settings.link.echo
        if isinstance(settings.link, SerialLink):
            self.character = character_time(settings.link)
            self._silence = max(self._silence, silence_time(settings.link))
        self._longest = settings.timeout / 1000 - self._silence - _SLACK
        """Seconds that a unit may take in vain, from its request to the next one's silence."""

    @property
    def is_open(self) -> bool:
        """Is there a port or connection to ask over?"""
        return self._client is not None and not self._lost

    @property
    def is_asking(self) -> bool:
        """Is a request on its way that must not be cancelled?"""
        return self._asked is not None

    # ------------------------------------------------------------------------------ open, close

    async def open(self) -> None:
        """Open the port or connection; nothing if it is open. Raises LinkDown."""
        if self.is_open:
            return
        await self.close()
        client: Any = None
        try:
            client = self._new_client()
            context = client.ctx
            context.is_closing = False
            # Its connect() would swallow why it failed.
            context.transport, _ = await asyncio.wait_for(context.call_create(), CONNECT_TIMEOUT)
            if isinstance(self._link, SerialLink):
                prepare(context.transport.sync_serial, self._link)
                await asyncio.sleep(0)  # the port is listened to from the loop's next turn on
        except (OSError, termios.error, ValueError) as error:  # TimeoutError, ssl.SSLError: OSError
            if client is not None:
                client.close()
            # A port that failed in the middle of being opened is open, and held by the frames.
            traceback.clear_frames(error.__traceback__)
            raise self._link_down(error) from error
        except asyncio.CancelledError:
            client.close()
            raise
        self._client, self._lost = client, False
        # Each connection counts from another number: gateways were seen to give an answer that
        # was meant for the connection before to the one after it.
        context.next_tid = self._random.randrange(1, 60_000)
        self._heard = self._clock.monotonic()
        await self._clock.until(self._heard + self.settings.pause_after_open / 1000)

    async def close(self) -> None:
        """Close the port or connection, whatever state it is in."""
        client, self._client = self._client, None
        if client is None:
            return
        transport = client.ctx.transport
        with contextlib.suppress(OSError, termios.error):
            if transport is not None and not self._over_socket:
                flush(transport.sync_serial)
            client.close()
        if transport is not None and self._over_socket:
            transport.abort()  # without TLS's farewell, which a silent peer would keep us waiting
        await asyncio.sleep(0)  # a socket is closed in the loop's next turn

    def _new_client(self) -> Any:
        link = self._link
        framer = {"rtu": FramerType.RTU, "ascii": FramerType.ASCII}
        common: dict[str, Any] = {
            "framer": framer.get(link.framing, FramerType.SOCKET),
            "retries": 0,
            "reconnect_delay": 0,
            "timeout": CONNECT_TIMEOUT,
            "trace_packet": self._packet,
            "trace_connect": self._connected,
        }
        if isinstance(link, SerialLink):
            client: Any = AsyncModbusSerialClient(
                link.path,
                baudrate=link.baudrate,
                bytesize=link.data_bits,
                parity=link.parity[0].upper(),
                stopbits=link.stopbits,
                **common,
            )
        else:
            client = AsyncModbusTcpClient(link.host, port=link.port, **common)
            if link.framing == "tls":  # the frames of Modbus TCP, inside TLS
                client.ctx.comm_params.sslctx = tls_context(link.tls)
                client.ctx.init_setup_connect_listen(link.host, link.port)
        client.set_max_no_responses(_NEVER)
        client.ctx.count_until_disconnect = _NEVER
        client.ctx.max_buffer_size = _BUFFER
        client.register(_RegistersAnswer)
        client.register(_InputRegistersAnswer)
        client.register(_IdentificationAnswer)
        client.register(_ServerIdAnswer)
        return client

    def _connected(self, up: bool) -> None:
        if not up:
            self._lost = True
            self._give_up()

    # -------------------------------------------------------------------------------------- ask

    async def read(self, unit: int, read: Read, *, timeout: float, pause: float = 0.0) -> Block:
        """Ask once, after `pause` seconds of silence or what the line needs. `timeout`: seconds
        that the unit may take to begin its answer; its time on the wire comes on top. On a line
        a unit that does not answer takes about the bus's longest timeout at most, in all.

        Raises MeterTimeout, BadAnswer, DeviceException or LinkDown; ValueError for unit 0 on a
        line, which nobody answers. A line is left to calm down before the next request, and a
        connection closed, after a timeout and after an answer that cannot be trusted.
        """
        answer = await self._request(unit, read, timeout, pause)
        if read.function in (1, 2):
            return Block(read.function, read.address, tuple(map(int, answer.bits[: read.count])))
        return Block(read.function, read.address, tuple(answer.registers))

    async def identify(
        self, unit: int, inquiry: Inquiry, *, timeout: float, pause: float = 0.0
    ) -> Told:
        """Ask for what it tells of itself; for an object that comes in a later answer of several,
        a few times. The object asked for may not be in what it tells. Raises as `read` does.
        """
        texts: dict[int, str] = {}
        start = 0
        for _ in range(_MOST_REQUESTS):
            answer = await self._request(unit, inquiry, timeout, pause, start)
            if inquiry.function == SERVER_ID:
                return Told(SERVER_ID, ((0, plain(answer.told[1:])),))
            objects = objects_in(answer.told)
            assert objects is not None  # the watch lets no other through
            texts |= {number: plain(value) for number, value in objects.given}
            if objects.following is None or inquiry.object in texts:
                break
            start = objects.following
        return Told(inquiry.function, tuple(texts.items()))

    async def _request(
        self, unit: int, question: Question, timeout: float, pause: float, start: int = 0
    ) -> Any:
        """pymodbus' object of the answer; `start`: the object of 43/14 to begin with."""
        if unit == 0 and self._link.framing not in ("tcp", "tls"):
            raise ValueError("unit 0 on a line is for broadcasts")
        if not self.is_open:
            raise LinkDown(self.settings.name, "not open")
        began = self._clock.monotonic()
        try:
            await self._calm(unit, max(self._silence, pause))
            return await self._ask(unit, question, timeout, start)
        except asyncio.CancelledError:
            await self.close()  # its answer must not meet the next request
            raise
        finally:
            self._asked = None
            self.busy += self._clock.monotonic() - began

    async def _calm(self, unit: int, silence: float) -> None:
        """Wait until the line was quiet for long enough to ask this unit."""
        seconds, since, end = self._drain.of(unit)
        while (now := self._clock.monotonic()) < min(max(since, self._heard) + seconds, end):
            await self._clock.sleep(min(max(since, self._heard) + seconds, end) - now)
        self._drain = _NO_DRAIN
        if self._over_socket and self._link.framing in ("rtu", "ascii"):
            await asyncio.sleep(0)  # what lies in the socket is read in the loop's next turn,
            await asyncio.sleep(0)  # and forgotten when the request is sent
        if self._heard + silence > self._clock.monotonic():
            await self._clock.until(self._heard + silence)

    async def _ask(self, unit: int, question: Question, timeout: float, start: int) -> Any:
        client = self._client
        if not self.is_open:  # it went while we waited
            raise LinkDown(self.settings.name, "the connection was lost")
        context = client.ctx
        if self._unasked:
            self._listen_back()
        if not self._over_socket:
            flush(context.transport.sync_serial)
        context.comm_params.timeout_connect = self._wait(question, timeout)
        self._asked, self._verdict = (unit, question), "nothing"
        try:
            answer = await self._send(client, unit, question, start)
        except (ModbusIOException, ConnectionException) as error:
            await self._failed(unit, question, timeout, error)
        if answer.isError():
            raise DeviceException(self.settings.name, unit, str(question), answer.exception_code)
        return answer

    def _send(self, client: Any, unit: int, question: Question, start: int) -> Any:
        if isinstance(question, Inquiry):
            if question.function == SERVER_ID:
                return client.report_device_id(device_id=unit)
            return client.read_device_information(
                read_code=question.category, object_id=start, device_id=unit
            )
        function = question.function
        if function == 3:
            ask = client.read_holding_registers
        elif function == 4:
            ask = client.read_input_registers
        else:
            ask = client.read_coils if function == 1 else client.read_discrete_inputs
        return ask(question.address, count=question.count, device_id=unit)

    async def _failed(
        self, unit: int, question: Question, timeout: float, error: Exception
    ) -> None:
        """Leave the line in a known state, then say what happened."""
        verdict, seen = self._verdict, self._watch.seen()
        name, block = self.settings.name, str(question)
        if self._lost:
            raise LinkDown(name, "the connection was lost", hint=self._hint) from error
        now = self._clock.monotonic()
        if not self._over_socket:
            # Whatever is still on its way may arrive now. Silence counts from the end of our
            # wait, noise from its last byte.
            if seen == "crc":
                self._drain = _Drain(unit, timeout, timeout, self._heard, now + _DRAINS * timeout)
            else:
                left = max(0.0, min(timeout, self._longest - self._wait(question, timeout)))
                self._drain = _Drain(unit, timeout, left, now, now + _DRAINS * timeout)
        elif verdict not in ("unit", "function", "length"):
            await self.close()  # a late answer dies with its connection
        if seen in ("nothing", "echo"):
            self._missed[unit] = now
            if seen == "echo" and not self._hears_itself:
                self.overheard.append(Overheard(now, "echo", unit))
            raise MeterTimeout(name, unit, block, "no answer") from error
        raise BadAnswer(name, unit, block, _SAID[seen], reason=seen) from error

    def _listen_back(self) -> None:
        """What was it that came while nothing was asked?"""
        data, self._unasked = self._unasked, b""
        now = self._clock.monotonic()
        for frame in overheard(self._link.framing, data):
            missed = self._missed.get(frame.unit)
            late = not frame.request and missed is not None and now - missed < LATEST_ANSWER
            self.overheard.append(Overheard(now, "late" if late else "foreign", frame.unit))

    def _wait(self, question: Question, timeout: float) -> float:
        """Seconds from a request on after which its answer is given up."""
        if self._over_socket:
            return timeout
        frames = self.wire_time(question)
        return max(min(frames + timeout, self._longest), frames + _AT_LEAST * timeout)

    def wire_time(self, question: Question) -> float:
        """Seconds that request and answer take on the line together; 0 over TCP."""
        characters = 28 + 2 * question.data_bytes if self._ascii else 13 + question.data_bytes
        return characters * self.character

    @property
    def _ascii(self) -> bool:
        return self._link.framing == "ascii"

    # ------------------------------------------------------------------------- pymodbus' hooks

    def _packet(self, sending: bool, data: bytes) -> bytes:
        """Sees each packet that leaves, and after it all that has arrived so far."""
        now = self._clock.monotonic()
        if not sending:
            self._heard = now
            frame, seen = self._watch.arrived(data)
            if self._asked is None and self._link.framing in ("rtu", "ascii"):
                self._unasked = data
            if frame:
                self.turnaround = max(0.0, now - self._sent - len(frame) * self.character)
            elif seen != "nothing" and self._asked:
                self._verdict = seen
                self._give_up()
            return frame
        assert self._asked is not None
        self._sent = self._heard = now + len(data) * self.character
        unit, question = self._asked
        transaction, frame = 0, data
        if self._ascii:
            frame = binascii.unhexlify(data[1:-2])[:-1]
        elif self._link.framing != "rtu":
            transaction = data[0] << 8 | data[1]
        category = question.category if isinstance(question, Inquiry) else 0
        expected = Request(
            unit, question.function, question.data_bytes, transaction, frame, category
        )
        self._watch.expect(expected)
        return data

    def _give_up(self) -> None:
        """Nothing better will come: end the wait for an answer."""
        if self._asked and not (answer := self._client.ctx.response_future).done():
            answer.set_exception(ConnectionException("given up"))

    @property
    def _hint(self) -> str:
        return TCP_HINT if self._over_socket else SERIAL_HINT

    def _link_down(self, error: BaseException) -> LinkDown:
        reason = why(error, self._link)
        if isinstance(error, TimeoutError):
            reason = f"no connection within {CONNECT_TIMEOUT:.0f} s"
        return LinkDown(self.settings.name, reason, hint=self._hint)


_SAID: Final[dict[Seen, str]] = {
    "crc": "the answer was damaged on the line",
    "unit": "another unit answered",
    "function": "an answer of another function",
    "length": "an answer of another length",
    "frame": "not Modbus TCP",
}
