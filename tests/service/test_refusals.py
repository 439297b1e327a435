"""What keeps a run from starting: each with its exit code, and what to do."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.world import call
from tests.service import Service, Site

Start = Callable[..., Awaitable[Service]]


async def test_a_second_run_leaves_with_73_and_names_the_first(site: Site, start: Start) -> None:
    await site.meter("main")
    config = site.write()
    first = await start(config)
    await first.says("gateway.started")
    second = await start(config)
    assert await second.ended() == 73
    assert f"process {first.process.pid}" in second.log
    assert "status" in second.log
    assert first.process.returncode is None
    await first.stop()
    third = await start(config)
    await third.says("gateway.started")
    await third.stop()


async def test_a_wrong_configuration_leaves_with_78_and_every_mistake(
    site: Site, start: Start
) -> None:
    await site.meter("main")
    config = site.write()
    wrong = config.read_text().replace("unit: 1", "unit: 300").replace("every: 5", "evry: 5")
    config.write_text(wrong)
    service = await start(config)
    assert await service.ended() == 78
    assert f"{config}:7:12: error: " in service.log
    line = wrong[: wrong.index("unit: 300")].count("\n") + 1
    assert f"{config}:{line}:" in service.log
    assert not service.buffer.exists()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
async def test_a_token_that_others_can_read_is_refused(site: Site, start: Start, mode: int) -> None:
    await site.meter("main")
    (site.folder / "basement.token").chmod(mode)
    service = await start(site.write())
    assert await service.ended() == 78
    assert "can be read by others" in service.log
    assert "chmod 600" in service.log
    assert "token-of-the-tests" not in service.log


async def test_a_folder_that_cannot_be_made_leaves_with_77(site: Site, start: Start) -> None:
    await site.meter("main")
    (site.folder / "file").write_text("")
    site.buffer = "file/readings.db"
    service = await start(site.write())
    assert await service.ended() == 77
    assert "try: the folder of the buffer" in service.log


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", folder], check=False
    ).returncode
    if made:
        pytest.skip("nothing can be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


async def test_a_read_only_file_system_leaves_with_77(site: Site, start: Start, disk: Path) -> None:
    await site.meter("main")
    site.buffer = "disk/readings.db"
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    service = await start(site.write())
    assert await service.ended() == 77
    assert "Read-only file system" in service.log
    assert "Traceback" not in service.log


def fill(disk: Path) -> Path:
    """Take all the room there is."""
    filler = disk / "filler"
    with pytest.raises(OSError, match="No space"), filler.open("wb", buffering=0) as out:
        while True:
            out.write(b"x" * 4096)
    return filler


async def test_a_full_disk_at_the_start_is_said_and_once_there_is_room_it_starts(
    site: Site, start: Start, disk: Path
) -> None:
    await site.meter("main")
    site.buffer = "disk/readings.db"
    filler = fill(disk)
    config = site.write()
    service = await start(config)
    assert await service.ended() in (1, 77)
    assert "try: free room on the disk" in service.log
    assert "Traceback" not in service.log
    filler.unlink()
    service = await start(config)
    service.buffer = disk / "readings.db"
    await service.stored(1)
    # Full while it runs: it goes on, and when there is room again nothing is missing.
    filler = fill(disk)
    await service.says("buffer.full")
    view = await service.status()
    assert view["service"]["running"]
    assert view["buffer"]["failing"]
    page = await asyncio.to_thread(call, "status", "--config", config)
    assert "it cannot be written: readings are kept in memory" in page.stdout
    filler.unlink()
    await service.says("buffer.recovered")
    assert not (await service.status())["buffer"]["failing"]
    await service.stop()
    rows = await service.stored(2)
    stamps = sorted(row.stamp for row in rows)
    assert stamps == list(range(stamps[0], stamps[-1] + 1, 5000))


async def test_a_disk_that_is_full_at_a_restart_keeps_nobody_from_reading_and_sending(
    site: Site, start: Start, disk: Path
) -> None:
    await site.meter("main")
    site.buffer = "disk/readings.db"
    config = site.write()
    service = await start(config)
    service.buffer = disk / "readings.db"
    await service.stored(1)
    await service.stop()
    requests = len(site.standin.requests)
    filler = fill(disk)
    again = await start(config)
    again.buffer = disk / "readings.db"
    await again.says("gateway.started")
    await again.says("buffer.full")
    assert (await again.status())["meters"][0]["state"] == "online"
    filler.unlink()
    await again.says("buffer.recovered")
    await again.stored(3)
    await again.stop()
    assert len(site.standin.requests) >= requests
