"""What to try where a meter gave nothing, by the reason; what is the same for all commands."""

from __future__ import annotations

from typing import Final

from gateway.modbus.settings import SERIAL_HINT, TCP_HINT

WIRES: Final = "check its power, the wires (A and B may be swapped), unit, baud rate and parity"

HINTS: Final = {
    "exception_4": "the meter reports a fault of its own: look at its display",
    "exception_10": "the gateway on the way to it has no path to this unit: check its settings",
    "exception_11": f"the gateway on the way to it hears nothing: {WIRES}",
    "crc": "check termination (120 ohm at both ends), shield, baud rate and parity",
    "unit": "another unit answers: check that no two meters have the same unit",
}
ON_A_LINE: Final = {"timeout": WIRES, "link_down": SERIAL_HINT}
OVER_TCP: Final = {
    "timeout": "check its power and its unit; behind a serial server also the wires and the baud"
    " rate there",
    "link_down": TCP_HINT,
}
