"""Three meters of two makers, not ours, every 5 s for a minute: all values arrive and are right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.acceptance.test_whole_way import run_for
from tests.independent import build


async def test_for_a_minute_every_value_is_what_the_meter_stood_at_and_none_is_missing(
    tmp_path: Path, debian: Callable[[str, str], None], free_tcp_port: int
) -> None:
    debian("/usr/include/modbus/modbus.h", "libmodbus-dev")
    debian("gcc", "gcc")
    await run_for(60, tmp_path, build(tmp_path), free_tcp_port)
