"""A site and its services, which all end with the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.service import Service, Site

Start = Callable[..., Awaitable[Service]]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """Energinet's stand-in with a window of 2 s; add meters, then `write`."""
    site = await Site(tmp_path).open()
    yield site
    await site.close()


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """`await start(config)`: a service that runs."""
    services: list[Service] = []

    async def begin(config: Path, **options: object) -> Service:
        service = await Service.start(config, **options)  # type: ignore[arg-type]
        services.append(service)
        return service

    yield begin
    for service in services:
        service.kill()
        await service.process.wait()
