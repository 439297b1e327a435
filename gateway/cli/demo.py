"""`meter-gateway demo`: the whole way on one machine, with simulated meters."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import signal
import tempfile
from collections import deque
from pathlib import Path
from typing import Any

import click

from gateway.cli.output import print_json
from gateway.cli.stage import ACTORS, WINDOW, Stage, held_by
from gateway.clock import SECOND, Instant
from gateway.config import load
from gateway.logbook import LOGGER, LogfmtFormatter

_UNITS = {"s": 1, "min": 60, "h": 3600}
_PLAIN_EVERY = 5
_LINES_SHOWN = 6


def _seconds(_: click.Context, __: click.Parameter, text: str) -> float | None:
    if text == "forever":
        return None
    match = re.fullmatch(r"(\d+) ?(s|min|h)", text)
    if match is None or int(match[1]) == 0:
        raise click.BadParameter("write 30s, 5min or forever")
    return int(match[1]) * _UNITS[match[2]]


@click.command()
@click.option("--duration", callback=_seconds, default="60s", show_default=True)
@click.option("--keep", metavar="FOLDER", type=click.Path(file_okay=False), help="Work here.")
@click.option("--json", "as_json", is_flag=True, help="The summary for scripts.")
def demo(duration: float | None, keep: str | None, as_json: bool) -> None:
    """Show the gateway at work: six simulated meters of six makers, on a serial line at wire
    speed and on Modbus TCP, one of them silent now and then; and a stand-in for Energinet that
    enforces the documented limits. Its window is 5 s here; the real one's is 10 min.

    Ends with 0, or with 1 if a value was lost or is not what its meter stood at.
    """
    with contextlib.ExitStack() as stack:
        folder = keep or stack.enter_context(tempfile.TemporaryDirectory(prefix="meter-gateway-"))
        Path(folder).mkdir(parents=True, exist_ok=True)
        summary = asyncio.run(_Show(Stage(Path(folder)), quiet=as_json).play(duration))
    if as_json:
        print_json(summary)
    else:
        click.echo("\n" + _told(summary))
    raise SystemExit(0 if summary["ok"] else 1)


class _Log(logging.Handler):
    """The last lines of the gateway's log."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(LogfmtFormatter())
        self.lines: deque[str] = deque(maxlen=_LINES_SHOWN)
        self.fresh: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        self.lines.append(line)
        self.fresh.append(line)


class _Show:
    """The stage, the gateway on it, and what a person sees of both."""

    def __init__(self, stage: Stage, *, quiet: bool) -> None:
        self._stage = stage
        self._quiet = quiet
        self._log = _Log()
        self._ended = asyncio.Event()

    async def play(self, duration: float | None) -> dict[str, Any]:
        """Run for so long; the summary."""
        from gateway.app import Gateway

        LOGGER.addHandler(self._log)
        LOGGER.setLevel(logging.INFO)
        LOGGER.propagate = False
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._ended.set)
        config = load(await self._stage.open()).config
        gateway = Gateway(config)
        running = asyncio.create_task(gateway.run())
        try:
            await self._watch(gateway, running, duration)
            summary = await self._last_act(gateway)
        finally:
            gateway.stop("the demo ends")
            await running
            await self._stage.close()
            LOGGER.removeHandler(self._log)
            self._tell_log()
        return summary

    async def _watch(
        self, gateway: Any, running: asyncio.Task[None], duration: float | None
    ) -> None:
        ended = asyncio.create_task(self._ended.wait())
        shown = asyncio.create_task(self._display(gateway))
        try:
            await asyncio.wait(
                [ended, shown, running], timeout=duration, return_when=asyncio.FIRST_COMPLETED
            )
            if running.done():
                running.result()
        finally:
            for task in (ended, shown):
                task.cancel()
            await asyncio.gather(ended, shown, return_exceptions=True)

    async def _last_act(self, gateway: Any) -> dict[str, Any]:
        """No more polls; what waits is sent; then everything is compared."""
        for rounds in gateway.plant.rounds.values():
            rounds.stop()
        await gateway.plant.committer.flush()
        for _ in range(20):
            counts = await gateway.store.counts()
            if not counts.pending and not counts.in_flight:
                break
            await asyncio.sleep(WINDOW / SECOND / 4)
        held = held_by(self._stage.standin)
        lost = []
        async for rows in gateway.store.export():
            for row in rows:
                at = _iso(row.stamp)
                if held.get((row.key.meter_id, at)) != row.value:
                    lost.append(f"{row.key.meter_id} {at} {row.value} {row.state}")
        wrong = self._stage.wrong()
        gaps: dict[str, int] = {}
        for line in await gateway.store.gaps():
            gaps[line.reason] = gaps.get(line.reason, 0) + line.count
        counts = await gateway.store.counts()
        ok = not lost and not wrong and counts.balanced and counts.stored > 0
        return {
            "ok": ok,
            "meters": len(ACTORS),
            "stored": counts.stored,
            "confirmed": counts.confirmed,
            "pending": counts.pending + counts.in_flight,
            "requests": len(self._stage.standin.requests),
            "missing": gaps,
            "lost": lost,
            "wrong": wrong,
        }

    # ------------------------------------------------------------------------------- showing it

    async def _display(self, gateway: Any) -> None:
        from rich.console import Console

        console = Console()
        if self._quiet:
            await asyncio.Event().wait()
        elif console.is_terminal:
            await self._live(gateway, console)
        else:
            await self._plain(gateway)

    async def _plain(self, gateway: Any) -> None:
        click.echo("six simulated meters; the stand-in's window is 5 s, the real one's is 10 min")
        while True:
            await asyncio.sleep(_PLAIN_EVERY)
            self._tell_log()
            view = await gateway.status()
            buffer = view["buffer"]
            states = ", ".join(f"{m['name']} {m['state']}" for m in view["meters"])
            click.echo(
                f"{view['service']['now']}  {states}  |  stored {buffer['stored']}"
                f" pending {buffer['pending'] + buffer['in_flight']}"
                f" confirmed {buffer['confirmed']}  |  Energinet took"
                f" {len(self._stage.standin.accepted)} values in"
                f" {len(self._stage.standin.requests)} requests"
            )

    def _tell_log(self) -> None:
        for line in self._log.fresh:
            if not self._quiet:
                click.echo(line, err=True)
        self._log.fresh.clear()

    async def _live(self, gateway: Any, console: Any) -> None:
        from rich.live import Live

        self._log.fresh.clear()
        with Live(console=console, auto_refresh=False, transient=False) as live:
            while True:
                live.update(self._screen(await gateway.status()), refresh=True)
                self._log.fresh.clear()
                await asyncio.sleep(0.5)

    def _screen(self, view: dict[str, Any]) -> Any:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        meters = Table(title="meters (simulated)", expand=True)
        for head in ("meter", "profile", "bus", "state", "value", "took"):
            meters.add_column(head, no_wrap=True)
        for meter in view["meters"]:
            style = {"online": "green", "offline": "red"}.get(meter["state"], "yellow")
            values = [v for v in meter["values"] if v["value"] is not None]
            shown = f"{values[0]['value']} {values[0]['unit']}" if values else ""
            took = f"{meter['turnaround_ms']} ms" if meter["turnaround_ms"] is not None else ""
            state = Text(meter["state"], style=style)
            meters.add_row(meter["name"], meter["profile"], meter["bus"], state, shown, took)
        buffer, sender, standin = view["buffer"], view["senders"][0], self._stage.standin
        lines = [
            f"buffer     stored {buffer['stored']} = pending {buffer['pending']} + in flight"
            f" {buffer['in_flight']} + confirmed {buffer['confirmed']}",
            f"sender     next request {sender['next_request'] or 'when there is something'};"
            f" last: {sender['last'] or 'none yet'}",
            f"Energinet  (stand-in, window 5 s; the real one's is 10 min) took"
            f" {len(standin.accepted)} values in {len(standin.requests)} requests,"
            f" {len(standin.violations)} broken limits",
        ]
        log = [
            Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in self._log.lines
        ]
        return Group(meters, *lines, "", *log)


def _iso(at: Instant) -> str:
    from gateway.status import iso

    text = iso(at)
    assert text is not None
    return text


def _told(summary: dict[str, Any]) -> str:
    lines = [
        f"{summary['meters']} meters: {summary['stored']} values stored,"
        f" {summary['confirmed']} confirmed by Energinet in {summary['requests']} requests,"
        f" {summary['pending']} waiting",
    ]
    for reason, count in summary["missing"].items():
        lines.append(f"{count} values are missing: {reason}")
    lines += [f"LOST   {line}" for line in summary["lost"][:10]]
    lines += [f"WRONG  {line}" for line in summary["wrong"][:10]]
    if summary["ok"]:
        lines.append("every value that Energinet holds is what its meter stood at; none was lost")
    return "\n".join(lines)
