"""`meter-gateway demo`: the whole way on one machine, with simulated meters."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import signal
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from gateway.cli.output import print_json
from gateway.cli.run import loop_factory
from gateway.cli.screen import plain_lines, screen
from gateway.cli.stage import WINDOW, Stage
from gateway.cli.verdict import Evidence, Verdict, judge, told
from gateway.clock import SECOND
from gateway.config import load
from gateway.errors import GatewayError
from gateway.logbook import LOGGER, LogfmtFormatter
from gateway.modbus.served import wall

if TYPE_CHECKING:
    from gateway.app import Gateway

_UNITS: Final = {"s": 1, "min": 60, "h": 3600}
_PLAIN_EVERY: Final = 5
_LINES_SHOWN: Final = 6
_LAST_REQUESTS: Final = 5
"""Windows that the end waits at most for what is still to be sent."""


def _seconds(_: click.Context, __: click.Parameter, text: str) -> float | None:
    if text == "forever":
        return None
    match = re.fullmatch(r"(\d{1,6}) ?(s|min|h)", text)
    if match is None or int(match[1]) == 0:
        raise click.BadParameter("write 30s, 5min or forever")
    return int(match[1]) * _UNITS[match[2]]


@click.command()
@click.option("--duration", callback=_seconds, default="60s", show_default=True)
@click.option(
    "--keep",
    metavar="FOLDER",
    type=click.Path(file_okay=False),
    help="Work here, and leave configuration and buffer behind to look at.",
)
@click.option("--json", "as_json", is_flag=True, help="Only the summary, for scripts.")
def demo(duration: float | None, keep: str | None, as_json: bool) -> None:
    """Show the gateway at work: six simulated meters of six makers, on a serial line at wire
    speed and on Modbus TCP, one of them silent now and then; and a stand-in for Energinet that
    enforces the documented limits. Its window is 5 s here; the real one's is 10 min.

    Ends with 0, or with 1 if a value was lost, is not what its meter stood at, or anything was
    logged as an error.
    """
    with contextlib.ExitStack() as stack:
        if keep is None:
            made = tempfile.TemporaryDirectory(prefix="meter-gateway-")
            folder = Path(stack.enter_context(made))
        else:
            folder = _kept(Path(keep))
        show = _Show(Stage(folder), quiet=as_json)
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            verdict = runner.run(show.play(duration))
    if as_json:
        print_json(verdict.view())
    else:
        click.echo("\n" + told(verdict))
        if keep is not None:
            click.echo(f"configuration and buffer are in {keep}")
    raise SystemExit(0 if verdict.ok else 1)


def _kept(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise GatewayError(f"--keep {folder}: there is something in it", hint="an empty folder")
    except OSError as error:
        raise GatewayError(f"--keep {folder}: {error.strerror}", hint="another folder") from error
    return folder


class _Log(logging.Handler):
    """The last lines of the gateway's log; those that were not shown yet; errors."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(LogfmtFormatter())
        self.lines: deque[str] = deque(maxlen=_LINES_SHOWN)
        self.fresh: list[str] = []
        self.errors: list[str] = []
        self.began = 0
        """When the gateway said that it runs."""

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        self.lines.append(line)
        self.fresh.append(line)
        if record.levelno >= logging.ERROR:
            self.errors.append(line)
        if getattr(record, "event", "") == "gateway.started":
            self.began = int(record.created * 1000)

    @contextlib.contextmanager
    def listening(self) -> Any:
        """While the gateway runs in this process. What asyncio complains of counts as well."""
        loggers = (LOGGER, logging.getLogger("asyncio"))
        for logger in loggers:
            logger.addHandler(self)
        level, propagate = LOGGER.level, LOGGER.propagate
        LOGGER.setLevel(logging.INFO)
        LOGGER.propagate = False
        try:
            yield
        finally:
            LOGGER.setLevel(level)
            LOGGER.propagate = propagate
            for logger in loggers:
                logger.removeHandler(self)


class _Show:
    """The stage, the gateway on it, and what a person sees of both."""

    def __init__(self, stage: Stage, *, quiet: bool) -> None:
        self._stage = stage
        self._quiet = quiet
        self._log = _Log()
        self._interrupted = asyncio.Event()

    async def play(self, duration: float | None) -> Verdict:
        """Run for so long; the verdict."""
        from gateway.app import Gateway

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupted.set)
        with self._log.listening():
            gateway = Gateway(load(await self._stage.open()).config)
            running = asyncio.create_task(gateway.run())
            try:
                await self._watch(gateway, running, duration)
                evidence = await self._last_act(gateway)
            finally:
                gateway.stop("the demo ends")
                await asyncio.wait([running])
                await self._stage.close()
                self._tell_log()
            running.result()
        return judge(self._stage, evidence())

    async def _watch(
        self, gateway: Gateway, running: asyncio.Task[None], duration: float | None
    ) -> None:
        interrupted = asyncio.create_task(self._interrupted.wait())
        shown = asyncio.create_task(self._display(gateway, duration))
        try:
            await asyncio.wait(
                [interrupted, shown, running],
                timeout=duration,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if running.done():
                running.result()
                raise GatewayError("the gateway ended by itself", hint="report this with its log")
        finally:
            for task in (interrupted, shown):
                task.cancel()
            told = await asyncio.gather(interrupted, shown, return_exceptions=True)
        if isinstance(told[1], Exception):
            raise told[1]

    async def _last_act(self, gateway: Gateway) -> Any:
        """No more polls, and what waits is sent; what there is to judge by, once all has ended."""
        ended = wall()
        await gateway.plant.drain()
        for _ in range(4 * _LAST_REQUESTS):
            counts = await gateway.store.check_counts()
            if not counts.pending and not counts.in_flight:
                break
            await asyncio.sleep(WINDOW / SECOND / 4)
        rows = [row async for some in gateway.store.export() for row in some]
        gaps = await gateway.store.gaps()
        log = self._log
        return lambda: Evidence(rows, gaps, counts, log.errors, log.began, ended)

    # ------------------------------------------------------------------------------- showing it

    async def _display(self, gateway: Gateway, duration: float | None) -> None:
        from rich.console import Console

        console = Console()
        if self._quiet:
            await asyncio.Event().wait()
        elif console.is_terminal:
            await self._live(gateway, console, duration)
        else:
            await self._plain(gateway)

    async def _plain(self, gateway: Gateway) -> None:
        click.echo("six simulated meters and a stand-in for Energinet, whose window is 5 s here;")
        click.echo("the real one's is 10 min. A line every 5 s:")
        while True:
            await asyncio.sleep(_PLAIN_EVERY)
            self._tell_log()
            for line in plain_lines(await gateway.status(), self._stage.standin):
                click.echo(line)

    def _tell_log(self) -> None:
        for line in self._log.fresh:
            if not self._quiet:
                click.echo(line, err=True)
        self._log.fresh.clear()

    async def _live(self, gateway: Gateway, console: Any, duration: float | None) -> None:
        from rich.live import Live

        ends = None if duration is None else time.monotonic() + duration
        with Live(console=console, auto_refresh=False) as live:
            while True:
                left = None if ends is None else max(0, round(ends - time.monotonic()))
                page = screen(
                    await gateway.status(), self._stage, self._log.lines, left, console.width
                )
                live.update(page, refresh=True)
                self._log.fresh.clear()  # they are on the screen
                await asyncio.sleep(0.5)
