"""`meter-gateway send`: the next body, or one request now."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import click

from gateway.cli.output import config_option, print_json
from gateway.config import find_path, load
from gateway.control import NotRunning, ask, socket_path
from gateway.errors import GatewayError, TargetUnreachable

_SHOWN = 2000


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
    settings = load(find_path(config)).config
    terminal = sys.stdin.isatty()
    if now and not yes and terminal:
        click.confirm("This uses the sender's slot of 10 minutes. Send now?", abort=True, err=True)
    try:
        address = socket_path(settings.buffer.path)
        view = ask(address, "send", timeout=150, sender=sender, dry_run=dry_run)
    except NotRunning:
        from gateway.app import send_alone

        view = asyncio.run(send_alone(settings, sender, dry_run=dry_run))
    if as_json:
        print_json(view)
    else:
        click.echo(_text(view, dry_run=dry_run))
    _end(view, dry_run=dry_run)


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
    lines = [
        f"sender {view['sender']}: {view['values']} values of {view['meters']} meters,"
        f" {view['bytes']} bytes"
    ]
    if not view["values"]:
        return lines[0] + "\nnothing waits to be sent"
    if dry_run:
        lines.append(f"may go: {view['next_request'] or 'now'}")
        body = view["body"]
        lines.append(body if len(body) <= _SHOWN else body[:_SHOWN] + "…")
        return "\n".join(lines)
    for name, one in view["verdicts"].items():
        lines.append(
            f"  {name}: {one['verdict']}" + (f" ({one['status']})" if one["status"] else "")
        )
    lines.append(f"next request: {view['next_request']}; still waiting: {view['waiting']}")
    return "\n".join(lines)
