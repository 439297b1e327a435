"""`meter-gateway explain`: what a log event means and what to do."""

from __future__ import annotations

import click

from gateway.cli.output import print_json
from gateway.config.report import did_you_mean
from gateway.errors import GatewayError
from gateway.logbook import EVENTS, Event


@click.command()
@click.argument("event", required=False)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def explain(event: str | None, as_json: bool) -> None:
    """Say what the log event EVENT means and what to do; without EVENT, list them all."""
    if event is None:
        if as_json:
            print_json([_view(each) for each in EVENTS.values()])
            return
        width = max(map(len, EVENTS))
        for each in EVENTS.values():
            click.echo(f"{each.name:<{width}}  {each.level:<7}  {each.meaning}")
        return
    name = event.removeprefix("event=")
    if name not in EVENTS:
        hint = did_you_mean(name, EVENTS) or "`meter-gateway explain` lists them all"
        raise GatewayError(f"there is no event {name}", hint=hint)
    found = EVENTS[name]
    if as_json:
        print_json(_view(found))
        return
    click.echo(f"{found.name}  ({found.level})")
    click.echo(f"\n{found.meaning}\n\nWhat to do: {found.action}")
    if found.fields:
        click.echo(f"\nFields: {', '.join(found.fields)}")


def _view(event: Event) -> dict[str, object]:
    return {
        "name": event.name,
        "level": event.level,
        "fields": list(event.fields),
        "meaning": event.meaning,
        "action": event.action,
    }
