"""Where a person wants to ask: a bus of the configuration, a serial port, or HOST:PORT."""

from __future__ import annotations

import os
import re
from typing import Literal

import click

from gateway.config import find_path, load
from gateway.config.addresses import is_host
from gateway.config.settings import GatewayConfig
from gateway.errors import GatewayError
from gateway.modbus.settings import BusSettings, SerialLink, TcpLink


def bus_at(
    text: str, framing: Literal["rtu", "ascii", "tcp"] | None, config: str | None
) -> BusSettings:
    """The bus that a person names: one of the configuration, a serial port, or HOST:PORT.

    Raises GatewayError, click.UsageError.
    """
    if "/" in text:
        if framing == "tcp":
            raise click.UsageError("--framing tcp is for HOST:PORT")
        return BusSettings("line", SerialLink(text, framing=framing or "rtu"))
    if match := re.fullmatch(r"\[?(?P<host>[^\[\]]+)\]?:(?P<port>\d{1,5})", text):
        host, port = match["host"], int(match["port"])
        if not is_host(host) or not 1 <= port <= 65_535:
            raise click.UsageError(f"{text} is not an address: write 192.168.10.20:502")
        return BusSettings("network", TcpLink(host, port, framing or "tcp"))
    if framing:
        raise click.UsageError("--framing: the configuration says that of its buses")
    buses = load(find_path(config), tokens=False).config.buses
    for bus in buses:
        if bus.name == text:
            return bus
    names = ", ".join(bus.name for bus in buses)
    hint = f"one of {names}, a port such as /dev/ttyUSB0, or HOST:PORT"
    raise GatewayError(f'there is no bus "{text}"', hint=hint)


def configured(config: str | None) -> GatewayConfig | None:
    """The configuration; None where nobody named one and there is none at its usual place."""
    path = find_path(config)
    if config is None and "METER_GATEWAY_CONFIG" not in os.environ and not path.is_file():
        return None
    return load(path, tokens=False).config
