"""Every key of gateway.yaml, by the section it stands in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

ROOT: Final = (
    "timezone", "energinet", "defaults", "buses", "meters", "profiles", "buffer", "clock", "log",
)  # fmt: skip
ENERGINET: Final = (
    "url", "timestamps", "label", "linger", "request_interval", "max_payload", "timeout", "ca",
    "proxy", "senders",
)  # fmt: skip
SENDER: Final = ("name", "import", "token")
PROXY: Final = ("url", "credentials")
DEFAULTS: Final = ("every", "as", "gap")
BUS: Final = ("poll", "timeout", "retries", "pause", "pause_after_open", "framing")
SERIAL: Final = ("serial", "baudrate", "parity", "stopbits", "echo", "rs485")
TCP: Final = ("tcp", "disconnect", "tls")
TLS: Final = ("ca", "certificate", "key")
METER: Final = (
    "name", "bus", "unit", "profile", "sender", "import", "multiplier", "serial_number",
    "max_power", "integrate", "send",
)  # fmt: skip
SEND: Final = ("meterID", "quantity", "as", "every", "gap")
BUFFER: Final = ("path", "keep", "max_size")
CLOCK: Final = ("assume_synchronised",)
LOG: Final = ("format", "level")

_SECTIONS: Final = (
    ("the entries under `send`", SEND),
    ("a meter", METER),
    ("a bus on TCP", TCP),
    ("a bus on a serial line", SERIAL),
    ("a bus", BUS),
    ("`log`", LOG),
    ("`clock`", CLOCK),
    ("`buffer`", BUFFER),
    ("a sender", SENDER),
    ("`energinet`", ENERGINET),
    ("the top of the file", ROOT),
)

MEANT: Final[Mapping[str, tuple[str, ...]]] = {
    "address": ("unit", "tcp"), "averaging": ("as",), "count": ("words",), "data_type": ("type",),
    "datatype": ("type",), "device": ("serial", "bus"), "endianness": ("word_order",),
    "factor": ("scale", "multiplier"), "fc": ("function",), "function_code": ("function",),
    "gain": ("scale", "multiplier"), "host": ("tcp",), "id": ("meterID", "unit"),
    "identifier": ("meterID",), "invalid": ("not_available",), "ip": ("tcp",),
    "interval": ("every", "poll"), "key": ("token",), "length": ("words",), "meter": ("name",),
    "model": ("profile",), "multiplier": ("scale",), "nan": ("not_available",), "port": ("serial",),
    "register": ("quantity", "address"), "registers": ("send",),
    "scale": ("multiplier",), "slave": ("unit",), "slave_id": ("unit",), "speed": ("baudrate",),
    "stop": ("stopbits",), "swap": ("word_order",),
    "type": ("profile",), "tz": ("timezone",), "unit_id": ("unit",), "values": ("send",),
    "zone": ("timezone",),
}  # fmt: skip
"""What other programs call a key to what it may be called here."""

BELONGS: Final[Mapping[str, str]] = {key: where for where, keys in _SECTIONS for key in keys}
"""Key to where it belongs, for one that stands in the wrong place."""
