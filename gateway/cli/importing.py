"""`meter-gateway import FILE`: values from a CSV file, to be sent with the others."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO
from zoneinfo import ZoneInfo

import click
from attrs import define, field

from gateway.cli.backfill import LeftOut, Reader, Row, known
from gateway.cli.doubts import Doubts, Point
from gateway.cli.output import (
    buffer_of,
    config_option,
    counted,
    mistake_view,
    print_json,
    render,
)
from gateway.clock import DAY, Instant, Millis, utc
from gateway.config import find_path, load
from gateway.config.settings import GatewayConfig
from gateway.control import NotRunning, ask, socket_path
from gateway.energinet.batch import fewest_requests, value_bytes
from gateway.errors import GatewayError, Mistake
from gateway.metering.reading import SeriesKey

if TYPE_CHECKING:
    from gateway.buffer.views import ExportRow

_AT_ONCE: Final = 1_000
"""Values that are handed over at a time."""

_BESIDE: Final[Millis] = 32 * DAY
"""How far from the values of the file their neighbours in the buffer are looked for."""

_SHOWN: Final = 20
"""Mistakes that are shown; `--json` has the same, and how many there are."""


@click.command("import")
@click.argument("file")
@click.option(
    "--import", "import_name", metavar="NAME", help="The import that the meterIDs are of."
)
@click.option(
    "--all", "all_", is_flag=True, help="Also what the file says was confirmed or dropped."
)
@click.option("--skip", is_flag=True, help="Leave out lines with mistakes, and take the others.")
@click.option(
    "--accept-doubtful",
    is_flag=True,
    help="Take what a counter cannot have done too: a drop, or a jump.",
)
@click.option("--yes", is_flag=True, help="Store them, without asking.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@config_option
def import_(
    file: str,
    import_name: str | None,
    all_: bool,
    skip: bool,
    accept_doubtful: bool,
    yes: bool,
    as_json: bool,
    config: str | None,
) -> None:
    """Store the values of a CSV file (- for standard input) and send them: meterID,time,value.

    What `export` writes can be read too; what it says was confirmed is left out. A value that is
    stored already is not stored again. With a mistake in the file nothing is, unless --skip. What a
    counter cannot have done, beside the values before and after, counts as one.
    Times without an offset are the site's own. Nothing is stored without --yes, or a yes on a
    terminal. Ends with 3 where lines were left out for their mistakes.
    """
    path = find_path(config)
    settings = load(path, tokens=False).config
    found = _read(settings, file, import_name, all_=all_)
    asyncio.run(_hold_against(settings, found, None if accept_doubtful else file))
    view = found.view(settings)
    if as_json and found.mistakes and not skip:
        print_json(view)
    _complain(found, skip=skip, as_json=as_json)
    if not as_json:
        click.echo(_text(view))
    rows = found.new
    if rows and not yes and not as_json and sys.stdin.isatty() and file != "-":
        yes = click.confirm(f"Store {counted(len(rows), 'value')}?", err=True)
    if rows and yes:
        view["stored"] = _store(path, settings, rows)
        if not as_json:
            click.echo(f"{counted(view['stored'], 'value')} stored")
    elif rows and not as_json:
        click.echo("nothing is stored without --yes", err=True)
    if as_json:
        print_json(view)
    if found.mistakes:
        raise SystemExit(3)


# ------------------------------------------------------------------------------------- reading


@define
class _Found:
    """What the file holds."""

    rows: dict[tuple[SeriesKey, Instant], Row]
    left_out: Counter[str] = field(factory=Counter)
    mistakes: int = 0
    first_mistakes: list[Mistake] = field(factory=list)
    stored: int = 0
    """How many are in the buffer with the same value."""
    otherwise: list[int] = field(factory=list)
    """Lines of values that are in the buffer with another value; that stays."""

    @property
    def new(self) -> list[Row]:
        """What is to be stored, the oldest first."""
        return sorted(self.rows.values(), key=lambda row: row.stamp)

    def view(self, settings: GatewayConfig) -> dict[str, Any]:
        """For JSON."""
        rows = self.new
        senders = {send.key: send.sender for meter in settings.meters for send in meter.send}
        zone, timestamps = ZoneInfo(settings.timezone), settings.energinet.timestamps
        sizes: Counter[str] = Counter()
        for row in rows:
            sizes[senders[row.key]] += value_bytes(row.stamp, row.value, zone, timestamps)
        return {
            "new": len(rows),
            "first": utc(rows[0].stamp) if rows else None,
            "last": utc(rows[-1].stamp) if rows else None,
            "known": self.stored,
            "otherwise": len(self.otherwise),
            "left_out": dict(self.left_out),
            "mistakes": self.mistakes,
            "first_mistakes": [mistake_view(one) for one in self.first_mistakes],
            "requests": fewest_requests(sizes.values(), settings.energinet.max_payload),
            "stored": 0,
        }


def _read(settings: GatewayConfig, file: str, import_name: str | None, *, all_: bool) -> _Found:
    sends = known([send for meter in settings.meters for send in meter.send], import_name)
    if not sends:
        raise GatewayError(f'there is no import "{import_name}"', hint="`meter-gateway check`")
    now = int(time.time() * 1000)
    reader = Reader(file, list(sends), ZoneInfo(settings.timezone), now, all_=all_)
    found = _Found(reader.rows)
    try:
        with _opened(file) as lines:
            for line in _with_progress(lines, file):
                for one in reader.take(line):
                    _sort(one, found)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise GatewayError(f"{file}: {why}", hint="name a CSV file") from error
    return found


def _sort(one: LeftOut | Mistake, found: _Found) -> None:
    if isinstance(one, LeftOut):
        found.left_out[one.state] += 1
    else:
        found.mistakes += 1
        if len(found.first_mistakes) < _SHOWN:
            found.first_mistakes.append(one)


def _opened(file: str) -> TextIO:
    if file == "-":
        return sys.stdin
    return Path(file).open(encoding="utf-8", newline="")


def _with_progress(lines: TextIO, file: str) -> Iterator[str]:
    """The lines; on a terminal with a bar by how much of the file was read."""
    if file == "-" or not sys.stderr.isatty():
        yield from lines
        return
    size = Path(file).stat().st_size
    step = max(1, size // 100)
    with click.progressbar(
        length=size, label="reading", file=sys.stderr, update_min_steps=step
    ) as bar:
        for line in lines:
            yield line
            bar.update(len(line.encode()))


async def _hold_against(settings: GatewayConfig, found: _Found, file: str | None) -> None:
    """Take out what is stored already, and what is in doubt beside its neighbours. `file`: its name
    for what is in doubt; None: nothing is."""
    doubts = Doubts(file or "", settings.meters if file else ())
    waiting = deque(found.new)

    def doubt(key: SeriesKey, point: Point) -> None:
        for stamp, mistake in doubts.take(key, point):
            if found.rows.pop((key, stamp), None) is not None:
                _sort(mistake, found)

    def up_to(stamp: Instant) -> None:
        while waiting and waiting[0].stamp < stamp:
            row = waiting.popleft()
            if (row.key, row.stamp) in found.rows:
                doubt(row.key, Point(row.stamp, row.value, row.line))

    async for one in _stored_beside(settings, found.new):
        up_to(one.stamp)
        row = found.rows.pop((one.key, one.stamp), None)
        if row is not None and row.value == one.value:
            found.stored += 1
        elif row is not None:
            found.otherwise.append(row.line)
        if one.state != "dropped":
            doubt(one.key, Point(one.stamp, one.value))
    up_to(1 << 62)


async def _stored_beside(settings: GatewayConfig, rows: Sequence[Row]) -> AsyncIterator[ExportRow]:
    """What is stored between the first of these and the last, and some time before and after."""
    from gateway.buffer.reads import ReadOnlyStore

    path = buffer_of(settings)
    if path is None or not rows:
        return
    store = ReadOnlyStore(path)
    await store.open()
    try:
        since, until = rows[0].stamp - _BESIDE, rows[-1].stamp + _BESIDE
        keys = {row.key for row in rows}
        async for some in store.export(keys=keys, since=since, until=until):
            for one in some:
                yield one
    finally:
        await store.close()


# ------------------------------------------------------------------------------------- storing


def _store(path: Path, settings: GatewayConfig, rows: list[Row]) -> int:
    """Hand them over, some at a time; how many were new."""
    address = socket_path(settings.buffer.path)
    count = 0
    with _portions(rows) as portions:
        for values in portions:
            try:
                count += ask(address, "import", timeout=120, values=values)["stored"]
            except NotRunning:
                from gateway.questions import import_alone

                again = load(path, tokens=False).config
                count += asyncio.run(import_alone(again, chain([values], portions)))
    return count


@contextmanager
def _portions(rows: list[Row]) -> Iterator[Iterator[list[list[Any]]]]:
    """Values to be handed over at a time; on a terminal with a bar."""
    starts = range(0, len(rows), _AT_ONCE)
    parts = (_values(rows[at : at + _AT_ONCE]) for at in starts)
    if not sys.stderr.isatty():
        yield parts
        return
    length = len(starts)
    with click.progressbar(parts, length=length, label="storing", file=sys.stderr) as bar:
        yield iter(bar)


def _values(rows: list[Row]) -> list[list[Any]]:
    return [[row.key.import_name, row.key.meter_id, row.stamp, str(row.value)] for row in rows]


# ------------------------------------------------------------------------------------- showing


def _complain(found: _Found, *, skip: bool, as_json: bool) -> None:
    """Show the mistakes. Raises GatewayError where nothing is to be stored for them."""
    if not found.mistakes:
        return
    if not as_json:
        click.echo(render(found.first_mistakes), err=True)
        if (more := found.mistakes - len(found.first_mistakes)) > 0:
            click.echo(f"… and {more} more", err=True)
        click.echo(err=True)
    if not skip:
        raise GatewayError(
            f"{counted(found.mistakes, 'mistake')} in the file: nothing is stored",
            hint="mend these lines, or leave them out with --skip",
        )


def _text(view: dict[str, Any]) -> str:
    lines = [f"{counted(view['new'], 'new value')}"]
    if view["new"]:
        lines[0] += f", {view['first']} to {view['last']}; {counted(view['requests'], 'request')}"
    if view["known"]:
        lines.append(f"{view['known']} are stored already")
    if view["otherwise"]:
        lines.append(f"{view['otherwise']} are stored with another value, which stays")
    lines += [
        f"{n} left out: the file says {state} (--all takes them)"
        for state, n in view["left_out"].items()
    ]
    if view["mistakes"]:
        lines.append(f"{view['mistakes']} left out for mistakes")
    return "\n".join(lines)
