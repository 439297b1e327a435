"""The instance lock and systemd's notify, with real processes and real sockets."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.errors import AlreadyRunning, NotPermitted
from gateway.service import InstanceLock, Systemd

HOLDER = """
import sys, time
from pathlib import Path
from gateway.service import InstanceLock
InstanceLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(60)
"""


def test_the_second_instance_is_told_the_pid_of_the_first(tmp_path: Path) -> None:
    lock = tmp_path / "readings.db.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(AlreadyRunning) as refused:
            InstanceLock(lock).acquire()
        assert refused.value.pid == holder.pid
        assert refused.value.exit_code == 73
        holder.kill()
        holder.wait()
    with InstanceLock(lock):  # the kernel freed the lock of the killed process
        assert lock.read_text() == f"{os.getpid()}\n"


def test_a_released_lock_names_no_pid_and_can_be_taken_again(tmp_path: Path) -> None:
    lock = InstanceLock(tmp_path / "lock")
    lock.acquire()
    lock.release()
    assert lock.path.read_text() == ""
    lock.acquire()
    lock.release()


def test_a_folder_that_cannot_be_made_is_a_permission_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotPermitted) as refused:
        InstanceLock(tmp_path / "file" / "lock").acquire()
    assert refused.value.exit_code == 77
    assert "folder" in refused.value.hint


@pytest.mark.parametrize("abstract", [False, True])
def test_notify_reaches_systemd_by_path_and_by_abstract_name(
    tmp_path: Path, abstract: bool
) -> None:
    name = f"@meter-gateway-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + name[1:] if abstract else name)
        systemd.settimeout(5)
        Systemd({"NOTIFY_SOCKET": name}).notify("READY=1", "STATUS=all is well")
        assert systemd.recv(1000) == b"READY=1\nSTATUS=all is well"


def test_without_systemd_nothing_is_sent_and_no_watchdog_is_fed() -> None:
    systemd = Systemd({})
    systemd.notify("READY=1")
    assert systemd.watchdog is None


def test_the_watchdog_is_fed_only_by_the_process_it_watches() -> None:
    ours = {"WATCHDOG_USEC": "120000000", "WATCHDOG_PID": str(os.getpid())}
    assert Systemd(ours).watchdog == 120
    assert Systemd({**ours, "WATCHDOG_PID": "1"}).watchdog is None
