"""A small disk of its own, to be filled up."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_ext4(folder: Path) -> Iterator[Path]:
    """An ext4 with 11 MB of room, in blocks as a card has them."""
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        pytest.skip("needs root and Debian's e2fsprogs")
    image, disk = folder / "image", folder / "disk"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(15_500_000)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-b", "4096", image], check=True)
    if subprocess.run(["mount", "-o", "loop", image, disk], check=False).returncode != 0:
        pytest.skip("loop devices cannot be mounted here")
    try:
        yield disk
    finally:
        # A test that failed may have left a file open.
        subprocess.run(["umount", "--lazy", disk], check=True)


def fill_up(folder: Path) -> Path:
    """Leave no room on the disk."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1_000_000, 100_000, 4_096, 512):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass
    return filler
