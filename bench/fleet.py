"""CPU and memory of whole gateways at 10, 100 and 500 Modbus TCP meters, beside each other.

Ten single precision values of each meter every 5 s. Ours stores every value on disk in
transactions that survive a power cut; modpoll writes its values to a file, thingsboard-gateway
hands them to a local MQTT broker (Debian's mosquitto). modpoll knows one host a process, so its
meters are units behind one address. One server in C feeds all of them.

    python -m bench.fleet [--meters 10,100,500] [--window 40] [--peers ours,modpoll,thingsboard]
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.processes import over, own_environment, running

VALUES = 10
PERIOD = 5
HERE = Path(__file__).parent
PEERS = HERE / ".peers"

PROFILE = """
maker: Bench
model: Ten floats
kind: electricity
sources: {bench: "bench/meters.c"}
requests: {max_registers: 60}
defaults: {function: 3, type: f32, sources: [bench]}
registers:
"""
QUANTITIES = [
    *(f"voltage_l{i}" for i in (1, 2, 3)),
    *(f"current_l{i}" for i in (1, 2, 3)),
    *(f"active_power_l{i}" for i in (1, 2, 3)),
    "active_power_total",
]
UNITS = {"voltage": "V", "current": "A", "active": "W"}


def free_ports(count: int) -> int:
    """The first of `count` ports in a row that nobody uses."""
    for first in range(21000, 31000, 700):
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise SystemExit("no free ports")


@contextmanager
def meters(first: int, count: int, folder: Path) -> Iterator[None]:
    """The C server; needs gcc."""
    binary = folder / "meters"
    subprocess.run(["gcc", "-O2", "-o", str(binary), str(HERE / "meters.c")], check=True)
    with running([str(binary), str(first), str(count)], log=folder / "meters.log"):
        wait_for_port(first + count - 1)
        yield


def wait_for_port(port: int, seconds: float = 20) -> None:
    """Until somebody listens there."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"nobody listens on port {port}")


@contextmanager
def ours(first: int, count: int, folder: Path) -> Iterator[int]:
    """The gateway as `run` runs it, its uploads going to a port that refuses them."""
    profiles = folder / "profiles"
    profiles.mkdir()
    registers = "".join(
        f"  - {{quantity: {q}, address: {2 * i}, unit: {UNITS[q.split('_')[0]]}}}\n"
        for i, q in enumerate(QUANTITIES)
    )
    (profiles / "bench-ten.yaml").write_text(PROFILE + registers)
    token = folder / "token"
    token.write_text("bench-token")
    token.chmod(0o600)
    lines = [
        "timezone: Europe/Oslo",
        "energinet:",
        "  url: http://127.0.0.1:9/apiImport/data",
        "  senders: [{name: bench, token: {file: token}}]",
        f"defaults: {{every: {PERIOD} s, as: last}}",
        "profiles: profiles/",
        "buffer: {path: readings.db}",
        "clock: {assume_synchronised: true}",
        "buses:",
    ]
    lines += [f"  bus{i}: {{tcp: '127.0.0.1:{first + i}', poll: {PERIOD} s}}" for i in range(count)]
    lines.append("meters:")
    for i in range(count):
        lines.append(f"  - {{name: m{i}, bus: bus{i}, unit: 1, profile: bench-ten, send: [")
        lines += [f'      {{meterID: "{i}-{j}", quantity: {q}}},' for j, q in enumerate(QUANTITIES)]
        lines.append("    ]}")
    (folder / "gateway.yaml").write_text("\n".join(lines))
    command = [sys.executable, "-m", "gateway.cli.main", "run", "--config", "gateway.yaml"]
    with running(command, log=folder / "ours.log", cwd=folder) as process:
        yield process.pid
    stored = subprocess.run(
        [*command[:3], "status", "--config", "gateway.yaml", "--json"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if stored.returncode == 0:
        (folder / "stored").write_text(str(json.loads(stored.stdout)["buffer"]["stored"]))


@contextmanager
def modpoll(first: int, count: int, folder: Path) -> Iterator[int]:
    """modpoll 1.6.0: one address, units 1 … count, written to a file each period."""
    python = own_environment(PEERS / "modpoll", "modpoll==1.6.0")
    lines = []
    for i in range(count):
        lines.append(f"device,m{i},{i % 247 + 1},BE_BE")
        lines.append(f"poll,holding_register,0,{2 * VALUES},BE_BE")
        lines += [f"ref,v{i}_{j},{2 * j},float32,r" for j in range(VALUES)]
    (folder / "modpoll.csv").write_text("\n".join(lines))
    command = [
        *(str(python.parent / "modpoll"), "-d", "-f", "modpoll.csv", "--tcp", "127.0.0.1"),
        *("--tcp-port", str(first), "-r", str(PERIOD), "--interval", "0"),
        *("-o", "out.json", "--loglevel", "ERROR"),
    ]
    with running(command, log=folder / "modpoll.log", cwd=folder) as process:
        yield process.pid


@contextmanager
def thingsboard(first: int, count: int, folder: Path) -> Iterator[int]:
    """thingsboard-gateway 3.8.5, memory store, to a local mosquitto; one request a value."""
    python = own_environment(PEERS / "thingsboard", "thingsboard-gateway==3.8.5")
    if not shutil.which("mosquitto", path="/usr/sbin:/usr/bin"):
        raise SystemExit("mosquitto is missing: apt-get install mosquitto")
    mqtt = free_ports(1) + 650
    (folder / "mosquitto.conf").write_text(f"listener {mqtt} 127.0.0.1\nallow_anonymous true\n")
    site = next((python.parent.parent / "lib").glob("python3*/site-packages"))
    shutil.copytree(site / "thingsboard_gateway" / "config", folder / "config")
    settings = json.loads((folder / "config" / "tb_gateway.json").read_text())
    settings["thingsboard"] |= {"host": "127.0.0.1", "port": mqtt, "remoteConfiguration": False}
    settings["thingsboard"]["statistics"] = {"enable": False}
    for limit in [key for key in settings["thingsboard"] if key.lower().endswith("ratelimits")]:
        settings["thingsboard"][limit] = "0:0,"
    settings["connectors"] = [
        {"type": "modbus", "name": "bench", "configuration": "bench.json", "logLevel": "ERROR"}
    ]
    (folder / "config" / "tb_gateway.json").write_text(json.dumps(settings))
    tags = [
        {
            "tag": f"v{j}",
            "type": "32float",
            "functionCode": 3,
            "objectsCount": 2,
            "address": 2 * j,
        }
        for j in range(VALUES)
    ]
    slaves = [
        {
            "host": "127.0.0.1",
            "port": first + i,
            "type": "tcp",
            "method": "socket",
            "unitId": 1,
            "deviceName": f"m{i}",
            "deviceType": "default",
            "timeout": 3,
            "byteOrder": "BIG",
            "wordOrder": "BIG",
            "pollPeriod": PERIOD * 1000,
            "timeseries": tags,
        }
        for i in range(count)
    ]
    (folder / "config" / "bench.json").write_text(json.dumps({"master": {"slaves": slaves}}))
    for level in (folder / "config").glob("logs.json"):
        level.write_text(level.read_text().replace('"INFO"', '"ERROR"'))
    broker = ["/usr/sbin/mosquitto", "-c", str(folder / "mosquitto.conf")]
    command = [str(python.parent / "thingsboard-gateway")]
    environment = {"TB_GW_CONFIG_DIR": str(folder / "config") + "/", "PATH": "/usr/bin:/bin"}
    with (
        running(broker, log=folder / "mosquitto.log"),
        running(command, log=folder / "tb.log", cwd=folder, env=environment) as process,
    ):
        yield process.pid


RUNNERS = {"ours": ours, "modpoll": modpoll, "thingsboard": thingsboard}


def measure(peer: str, count: int, window: float, settle: float) -> dict[str, float]:
    """One cell of the table."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleet")))
        first = free_ports(count)
        stack.enter_context(meters(first, count, folder))
        with RUNNERS[peer](first, count, folder) as pid:
            time.sleep(settle)
            before, after = over(pid, window)
        readings = count * VALUES * window / PERIOD
        cell = {
            "cpu_per_1000": (after.cpu - before.cpu) / readings * 1000,
            "share_of_core": (after.cpu - before.cpu) / window,
            "rss_mb": after.rss,
            "switches_per_s": (after.switches - before.switches) / window,
        }
        if (folder / "stored").exists():
            expected = count * VALUES * (window + settle) / PERIOD
            cell["stored_of_expected"] = int((folder / "stored").read_text()) / expected
        return cell


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--meters", default="10,100,500")
    parser.add_argument("--peers", default="ours,modpoll,thingsboard")
    parser.add_argument("--window", type=float, default=40)
    parser.add_argument("--settle", type=float, default=15)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    results: dict[str, dict[str, dict[str, float]]] = {}
    for peer in asked.peers.split(","):
        for count in map(int, asked.meters.split(",")):
            cell = measure(peer, count, asked.window, asked.settle)
            results.setdefault(peer, {})[str(count)] = cell
            if not asked.json:
                shown = "  ".join(f"{name} {value:.3f}" for name, value in cell.items())
                print(f"{peer:12} {count:4} meters  {shown}", flush=True)
    if asked.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
