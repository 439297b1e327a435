"""`meter-gateway explain`: what a log event, or why a value is missing, means; what to do."""

from __future__ import annotations

import re

import click

from gateway.cli.output import print_json
from gateway.config.report import did_you_mean
from gateway.errors import GatewayError
from gateway.logbook import EVENTS, Event
from gateway.metering.missing import REASONS, Reason, explained


@click.command()
@click.argument("event", required=False)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def explain(event: str | None, as_json: bool) -> None:
    """Say what the log event EVENT means and what to do; without EVENT, list them all.

    EVENT may also be the reason for which `status` calls a value missing.
    """
    if event is None:
        if as_json:
            print_json([_view(each) for each in EVENTS.values()])
            return
        width = max(map(len, EVENTS))
        for each in EVENTS.values():
            click.echo(f"{each.name:<{width}}  {each.level:<7}  {each.meaning}")
        return
    name = event.removeprefix("event=").removeprefix("reason=")
    if name in REASONS or re.fullmatch("exception_[0-9]+", name):
        _explain_reason(explained(name), as_json=as_json)
        return
    if name not in EVENTS:
        hint = did_you_mean(name, [*EVENTS, *REASONS]) or "`meter-gateway explain` lists them all"
        raise GatewayError(f"there is no event {name}", hint=hint)
    found = EVENTS[name]
    if as_json:
        print_json(_view(found))
        return
    click.echo(f"{found.name}  ({found.level})")
    click.echo(f"\n{found.meaning}\n\nWhat to do: {found.action}")
    if found.fields:
        click.echo(f"\nFields: {', '.join(found.fields)}")


def _explain_reason(reason: Reason, *, as_json: bool) -> None:
    if as_json:
        print_json({"name": reason.name, "meaning": reason.meaning, "action": reason.action})
        return
    click.echo(f"{reason.name}  (a value is missing)")
    click.echo(f"\n{reason.meaning}\n\nWhat to do: {reason.action}")


def _view(event: Event) -> dict[str, object]:
    return {
        "name": event.name,
        "level": event.level,
        "fields": list(event.fields),
        "meaning": event.meaning,
        "action": event.action,
    }
