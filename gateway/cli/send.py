"""`meter-gateway send`: the next body, or one request now."""

from __future__ import annotations

import asyncio
import random
import sys
from typing import Any, Final
from zoneinfo import ZoneInfo

import click

from gateway.cli.output import buffer_of, config_option, counted, declared_by, print_json
from gateway.config import find_path, load
from gateway.config.settings import GatewayConfig
from gateway.control import NotRunning, ask, socket_path
from gateway.errors import GatewayError, TargetUnreachable

_SHOWN: Final = 2000
"""Characters of a body that are shown; `--json` has all of it."""


@click.command()
@click.option("--dry-run", is_flag=True, help="Show the next body, its size and when it may go.")
@click.option("--now", is_flag=True, help="Send one request now, if the API allows one.")
@click.option("--sender", help="Which sender; not needed where there is one.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.option("--yes", is_flag=True, help="Do not ask before sending.")
@config_option
def send(
    dry_run: bool, now: bool, sender: str | None, as_json: bool, yes: bool, config: str | None
) -> None:
    """Show the next request to Energinet, or make it.

    A request uses the sender's slot: the next one may go 10 minutes later. Ends with 75 where the
    slot is not free, 69 where no answer came, 3 where not every meter was confirmed.
    """
    if dry_run == now:
        raise click.UsageError("say --dry-run to look, or --now to send")
    path = find_path(config)
    settings = load(path, tokens=False).config
    address = socket_path(settings.buffer.path)
    if now and not yes and sys.stdin.isatty():
        click.confirm("This uses the sender's slot of 10 minutes. Send now?", abort=True, err=True)
    try:
        view = ask(address, "send", timeout=150, sender=sender, dry_run=dry_run)
    except NotRunning:
        if dry_run or buffer_of(settings) is None:
            view = asyncio.run(_look(settings, sender))
        else:
            from gateway.questions import send_alone

            view = asyncio.run(send_alone(load(path).config, sender, dry_run=False))
    if as_json:
        print_json(view)
    else:
        click.echo(_text(view, dry_run=dry_run))
    _end(view, dry_run=dry_run)


async def _look(config: GatewayConfig, name: str | None) -> dict[str, Any]:
    """The next body, from a buffer that is only read: none is made, and no file changes hands."""
    from gateway.buffer.reads import ReadOnlyStore
    from gateway.clock import SystemClock
    from gateway.energinet.late import LateClient
    from gateway.energinet.slots import Slots
    from gateway.energinet.uploader import SendReport, Uploader
    from gateway.status import report_view

    class Look(ReadOnlyStore):
        """An outbox from which nothing is taken."""

        async def release_flight(self, sender: str) -> None:
            pass

        async def keep_slot(self, sender: str, state: bytes) -> None:
            pass

        async def settle(self, sender: str, settlements: object, slot: bytes) -> None:
            pass

    senders = {one.name: one for one in config.energinet.senders}
    if name is None and len(senders) == 1:
        name = next(iter(senders))
    if name is None or name not in senders:
        raise GatewayError(
            f"which sender? {name or ''}".strip(), hint=f"one of {', '.join(senders)}"
        )
    path = buffer_of(config)
    if path is None:
        return report_view(SendReport(name, b"[]", 0, 0, 0, None))
    store = Look(path, declared_by(config))
    await store.open()
    try:
        settings, zone = config.energinet, ZoneInfo(config.timezone)
        clock = SystemClock(assume_synchronised=config.clock.assume_synchronised)
        client, draw = LateClient(settings), random.Random()
        slots = Slots(store, settings, clock)
        uploader = Uploader(senders[name], settings, store, client, clock, zone, draw, slots)
        return report_view(await uploader.once(dry_run=True))
    finally:
        await store.close()


def _end(view: dict[str, Any], *, dry_run: bool) -> None:
    if dry_run or not view["values"]:
        return
    if view["answer"] is None or view["reason"]:
        raise TargetUnreachable(
            f"no answer: {view['reason']}", hint="check the network, DNS, the proxy and the clock"
        )
    if view["answer"] != "answered":
        raise GatewayError(
            f"refused with status {view['status']}: {view['answer']}",
            hint="every value is kept; docs/reference/answers.md tells what each status means",
        )
    if any(one["verdict"] != "confirmed" for one in view["verdicts"].values()):
        raise SystemExit(3)


def _text(view: dict[str, Any], *, dry_run: bool) -> str:
    if not view["values"]:
        return f"sender {view['sender']}: nothing waits to be sent"
    values, meters = counted(view["values"], "value"), counted(view["meters"], "meter")
    lines = [f"sender {view['sender']}: {values} of {meters}, {view['bytes']} bytes"]
    if dry_run:
        lines.append(f"may go: {view['next_request'] or 'now'}")
        body = view["body"]
        lines.append(body if len(body) <= _SHOWN else body[:_SHOWN] + "… (all of it: --json)")
        return "\n".join(lines)
    for name, one in view["verdicts"].items():
        lines.append(
            f"  {name}: {one['verdict']}" + (f" ({one['status']})" if one["status"] else "")
        )
    lines.append(f"next request: {view['next_request']}; still waiting: {view['waiting']}")
    return "\n".join(lines)
