from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.cli import main


def test_who_may_not_read_the_buffer_is_told_so(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the folder of a systemd service is: root may look into it, others may not."""
    buffer = site.parent / "kept" / "readings.db"
    site.write_text(site.read_text() + f"buffer: {{path: {buffer}}}\n")
    look = os.stat

    def refuse(path: str | Path, **options: bool) -> os.stat_result:
        if str(path) == str(buffer):
            raise PermissionError(13, "Permission denied", str(path))
        return look(path, **options)

    monkeypatch.setattr(os, "stat", refuse)
    assert main.run(["export", "--config", str(site)]) == 77
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "try again with sudo" in shown.err
