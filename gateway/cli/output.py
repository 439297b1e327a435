"""What all commands share: --config, how mistakes and errors are shown, exit codes.

0 done, 1 failed, 2 usage, 3 partly, 69 target unreachable, 73 already running, 75 try later,
77 permission, 78 configuration. Data goes to standard output, everything else to standard error.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from gateway.errors import (
    ConfigurationError,
    GatewayError,
    Mistake,
    NotPermitted,
    StoreDamaged,
    StoreFull,
    StoreNewer,
    StoreUnavailable,
    TryLater,
)

if TYPE_CHECKING:
    from gateway.buffer.appending import Declared
    from gateway.config.settings import GatewayConfig

Command = TypeVar("Command", bound=Callable[..., Any])

WIDEST: Final = 200
"""Characters of a source line that are shown around a mistake."""

_TRY: Final = (
    (StoreDamaged, "run the gateway: it sets a damaged buffer aside and saves what is sound"),
    (StoreNewer, "install the version that wrote it, or a newer one"),
    (StoreFull, "free room on the disk"),
    (StoreUnavailable, "look for I/O errors of the disk or card with dmesg, and try again"),
    (NotPermitted, "try again with sudo, or as the user that the gateway runs as"),
    (TryLater, "try again later"),
    (GatewayError, "`meter-gateway check`, and the log of the service"),
)
"""What to try next where an error does not say it itself."""

_COLOURS: Final = {"error": "red", "warning": "yellow"}


def config_option(command: Command) -> Command:
    """Add --config FILE; the command gets it as `config: str | None`, for `find_path`."""
    option = click.option(
        "--config",
        metavar="FILE",
        help="The configuration. Default: $METER_GATEWAY_CONFIG, else"
        " /etc/meter-gateway/gateway.yaml.",
    )
    return option(command)


def buffer_of(config: GatewayConfig) -> Path | None:
    """The file of its buffer; None: there is none yet. Raises NotPermitted."""
    path = Path(config.buffer.path)
    try:
        return path if path.exists() else None
    except PermissionError as error:  # the folder of a systemd service is root's
        raise NotPermitted(f"{path}: you may not look into this folder") from error


def declared_by(config: GatewayConfig) -> Declared:
    """What a service with this configuration would tell the buffer at its start."""
    from gateway.buffer.appending import Declared
    from gateway.config.heirs import heir, series_of

    return Declared(series_of(config), partial(heir, config))


def print_json(value: object) -> None:
    """Data for scripts, to standard output."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def counted(number: int, what: str) -> str:
    """`1 request`, `2 requests`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def show_error(error: GatewayError) -> None:
    """An error and what to try next, to standard error."""
    hint = error.hint or next(hint for kind, hint in _TRY if isinstance(error, kind))
    if isinstance(error, ConfigurationError):
        click.echo(render(error.mistakes), err=True)
        click.echo(err=True)
    _say_error(str(error), hint)


def show_usage(error: click.ClickException) -> None:
    """A command line that cannot be understood, and what to try next, to standard error."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()  # the help itself
        return
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is not None:
        click.echo(context.get_usage(), err=True)
    path = context.command_path if context is not None else "meter-gateway"
    _say_error(error.format_message(), f"`{path} --help`")


def show_unexpected() -> None:
    """The error that is under way and that nobody took, to standard error."""
    from gateway.logbook import without_secrets

    click.echo(without_secrets(traceback.format_exc()), err=True)


def _say_error(message: str, hint: str) -> None:
    from gateway.logbook import without_secrets

    message = without_secrets(message)
    click.echo(click.style("error: ", fg="red") + escaped(message), err=True)
    if hint:
        click.echo(f"  try: {escaped(hint)}", err=True)


def render(mistakes: Iterable[Mistake]) -> str:
    """Mistakes as they are printed: place and message, the line, a caret, the suggestion."""
    return "\n".join(line for mistake in mistakes for line in _lines(mistake))


def mistake_view(mistake: Mistake) -> dict[str, object]:
    """One mistake for `--json`."""
    return {
        "level": mistake.level,
        "file": mistake.file,
        "line": mistake.line,
        "column": mistake.column,
        "message": mistake.message,
        "suggestion": mistake.suggestion,
    }


def escaped(text: str) -> str:
    """Text on a terminal: line breaks are kept, other control characters are shown as codes."""
    return "".join(
        c
        if c.isprintable() or c == "\n"
        else c.encode("unicode_escape", "surrogatepass").decode("ascii")
        for c in text
    )


def _lines(mistake: Mistake) -> Iterable[str]:
    colour = _COLOURS.get(mistake.level)
    place = f"{mistake.file}:{mistake.line}:{mistake.column}: "
    level = click.style(f"{mistake.level}: ", fg=colour)
    yield click.style(escaped(place), bold=True) + level + escaped(mistake.message)
    if not mistake.source.strip():
        if mistake.suggestion:
            yield f"     | {escaped(mistake.suggestion)}"
        return
    if mistake.other is not None:
        number, source = mistake.other
        yield f"{number:4} | {_flat(source)[:WIDEST]}"
    source, column = _flat(mistake.source), (mistake.caret or mistake.column) - 1
    width = max(1, min(mistake.width, len(source) - column, WIDEST))
    start = max(0, column + width - WIDEST + 20) if len(source) > WIDEST else 0
    yield f"{mistake.line:4} | {source[start : start + WIDEST]}"
    caret = click.style("^" * width, fg=colour)
    yield f"     | {' ' * (column - start)}{caret} {escaped(mistake.suggestion)}".rstrip()


def _flat(source: str) -> str:
    """The line with every character one column wide."""
    return "".join(c if c.isprintable() else "\u00b7" for c in source.replace("\t", " "))
