"""`meter-gateway run`: the gateway, in the foreground."""

from __future__ import annotations

import asyncio

import click

from gateway import logbook
from gateway.cli.output import config_option, render
from gateway.config import find_path, load


@click.command()
@config_option
def run(config: str | None) -> None:
    """Run the gateway in the foreground.

    SIGTERM ends it in order within 5 s; SIGHUP reads the configuration again, and keeps the old
    one where the new one has mistakes.
    """
    from gateway.app import run_service

    path = find_path(config)
    loaded = load(path)
    if loaded.warnings:
        click.echo(render(loaded.warnings), err=True)
    logbook.set_up(format=loaded.config.log.format, level=loaded.config.log.level)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        raise SystemExit(runner.run(run_service(path, loaded.config)))


def loop_factory() -> type | None:
    """uvloop's where the extra is installed."""
    try:
        import uvloop  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return None
    factory: type = uvloop.new_event_loop
    return factory
