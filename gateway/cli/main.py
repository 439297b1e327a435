"""`meter-gateway`: the commands by name, and how a command ends."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any, Final

import click

import gateway
from gateway.cli.output import show_error, show_unexpected, show_usage
from gateway.errors import GatewayError

COMMANDS: Final = {
    "run": ("gateway.cli.run:run", "The gateway, in the foreground."),
    "demo": ("gateway.cli.demo:demo", "The whole way on this machine, with simulated meters."),
    "simulate": ("gateway.cli.simulate:simulate", "Simulated meters to practise on."),
    "scan": ("gateway.cli.scan:scan", "Which meters there are, and their settings."),
    "read": ("gateway.cli.read:read", "What a meter shows right now."),
    "registers": ("gateway.cli.registers:registers", "Raw registers in every type and order."),
    "verify": ("gateway.cli.verify:verify", "A display's value against what the profile reads."),
    "check": ("gateway.cli.check:check", "The configuration: mistakes, and what it will cost."),
    "status": ("gateway.cli.status:status", "Buses, meters, what is pending, the next request."),
    "events": ("gateway.cli.events:events", "What the log said; reboots do not take it."),
    "send": ("gateway.cli.send:send", "The next request to Energinet: shown, or made now."),
    "accept": ("gateway.cli.accept:accept", "A meter that was replaced, or a counter, is right."),
    "resend": ("gateway.cli.resend:resend", "Decode again what is stored; send what was wrong."),
    "parked": ("gateway.cli.parked:parked", "What is kept and not sent; send it, or drop it."),
    "export": ("gateway.cli.export:export", "Readings as CSV."),
    "import": ("gateway.cli.importing:import_", "Values from a CSV file, to be sent."),
    "explain": ("gateway.cli.explain:explain", "What a log event means and what to do."),
    "profiles": ("gateway.cli.profiles:profiles", "The meter models that are known."),
}
"""Name to where the command is, imported when it is called, and its line in --help."""


SELDOM: Final = 20_000
"""Objects made and not freed until a look for circles among them, which takes a tenth of the time
at Python's 700: a round of hundreds of meters makes as many, and none in circles."""


class Commands(click.Group):
    """Imports a command only when it is called, so that --help and each start are quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command itself."""
        if cmd_name not in COMMANDS:
            return None
        module, _, function = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), function)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with a suggestion for a command that there is not."""
        if self.get_command(ctx, args[0]) is None:
            near = get_close_matches(args[0], COMMANDS, n=1)
            meant = f"; did you mean {near[0]}?" if near else ""
            raise click.UsageError(f'there is no command "{args[0]}"{meant}', ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Their lines, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(gateway.__version__, "--version", prog_name="meter-gateway")
def cli() -> None:
    """Bring readings of Modbus meters to Energinet.

    Start with `meter-gateway demo`, or with a configuration and `meter-gateway check`.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and end the process with its exit code."""
    gc.set_threshold(SELDOM)
    try:
        code = run(arguments)
    except Exception:
        show_unexpected()
        code = 1
    sys.exit(code)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    try:
        found: Any = cli.main(
            args=list(arguments) if arguments is not None else None,
            prog_name="meter-gateway",
            standalone_mode=False,
        )
    except GatewayError as error:
        show_error(error)
        return error.exit_code
    except click.Abort:
        click.echo("stopped", err=True)
        return 1
    except click.ClickException as error:
        show_usage(error)
        return error.exit_code
    except BrokenPipeError:
        # Whoever read our output has gone (`… | head`); the interpreter would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    return found if isinstance(found, int) else 0


if __name__ == "__main__":
    main()
