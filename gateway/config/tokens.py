"""Where a token is kept, and reading it from there each time it is needed.

Nothing here puts the text that stands in the file into a message: someone may have pasted the
token itself in its place.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from attrs import frozen

from gateway.config.document import Node, Scalar, Table
from gateway.config.report import Report, closest
from gateway.energinet.settings import Secret, SecretSource
from gateway.errors import GatewayError, NotPermitted

KINDS: Final = ("file", "env", "credential")
_EXAMPLE: Final = "{file: NAME.token}, {env: NAME} or {credential: NAME}"
_MOST: Final = 16_384
_BROKEN: Final = "\ufffd"
"""Stands in for bytes that are not UTF-8."""


@frozen
class Kept:
    """The place of a secret. Calling it reads the secret."""

    kind: Literal["file", "env", "credential"]
    where: Path
    """The file; for an environment variable its name."""
    environment: Mapping[str, str]
    what: str
    """token of sender basement."""
    pair: bool = False
    """It is user:password, which may hold spaces and letters of any language."""

    def __call__(self) -> Secret:
        """The secret as it is now. Raises NotPermitted or GatewayError; never shows it."""
        if self.kind == "env":
            found = self.environment.get(str(self.where))
            if found is None:
                raise GatewayError(
                    f"the {self.what}: its environment variable is not set",
                    hint="set it for the service, or keep the token in a file",
                )
            return self._checked(found)
        try:
            with self.where.open("rb") as file:
                data = file.read(_MOST + 1)
        except PermissionError:
            raise NotPermitted(
                f"the {self.what}: its file may not be read by this user",
                hint="give the file to the user that runs the gateway, mode 600; a systemd service"
                " gets it by {credential: NAME}",
            ) from None
        except OSError as error:
            if self.kind == "credential":
                raise GatewayError(
                    f"the {self.what}: systemd hands over no credential of this name",
                    hint="with the shipped unit, token_NAME is /etc/meter-gateway/tokens/NAME",
                ) from None
            raise GatewayError(
                f"the {self.what}: its file cannot be read: {error.strerror}",
                hint="put the token into the file named in the configuration",
            ) from None
        if len(data) > _MOST:
            raise GatewayError(f"the {self.what}: its file is too large to hold one")
        return self._checked(data.decode("utf-8", "replace"))

    def _checked(self, found: str) -> Secret:
        stripped = found.strip()
        if not stripped:
            raise GatewayError(f"the {self.what} is empty", hint="put the token in its place")
        allowed = stripped.isprintable() and _BROKEN not in stripped
        if not self.pair:
            allowed = allowed and stripped.isascii() and " " not in stripped
        if not allowed:
            plain = "plain letters, digits and signs, without spaces"
            raise GatewayError(
                f"the {self.what} holds characters that none can have",
                hint=f"it has to be one line of {'text in UTF-8' if self.pair else plain}",
            )
        if self.pair and ":" not in stripped:
            raise GatewayError(f'the {self.what} has no ":"', hint="write user:password")
        return Secret(stripped)


def unset(what: str) -> SecretSource:
    """Stands in where the place of a secret could not be read."""

    def refuse() -> Secret:
        raise GatewayError(f"the {what} is not configured")

    return refuse


def read_secret(
    report: Report,
    node: Node,
    what: str,
    *,
    folder: Path,
    environment: Mapping[str, str],
    pair: bool = False,
    look: bool = True,
) -> Kept | None:
    """The place named under `token`. Mistakes go into the report; None after one.

    look: is the secret there, and safe from others? Commands that send nothing need not know.
    """
    place = _place(report, node, what)
    if place is None:
        return None
    kind, value = place
    if kind == "env":
        kept = Kept("env", Path(value.text), environment, what, pair)
    elif kind == "credential":
        held = environment.get("CREDENTIALS_DIRECTORY")
        if held is None:
            message = f"the {what} is a systemd credential: it can be read only in the service"
            if look:
                report.warning(value.span, message)
            return Kept("credential", Path("/run/credentials") / value.text, {}, what, pair)
        kept = Kept("credential", Path(held) / value.text, environment, what, pair)
    else:
        kept = Kept("file", folder / value.text, environment, what, pair)
    if look:
        _look(report, value, kept)
    return kept


def _place(
    report: Report, node: Node, what: str
) -> tuple[Literal["file", "env", "credential"], Scalar] | None:
    if node.refused:
        return None
    hint = f"write {_EXAMPLE}"
    if not isinstance(node, Table):
        report.error(node.span, f"the {what} may not stand in this file, only where it is", hint)
        return None
    if len(node.entries) != 1:
        if node.complete:
            report.error(node.span, f"the {what} needs one of file, env and credential", hint)
        return None
    key, value = node.entries[0]
    if not isinstance(value, Scalar):
        report.error(value.span, f"the {what}: expected one name here", hint)
        return None
    if value.refused:
        return None
    for kind in KINDS:
        if key.text == kind:
            if not value.text or not value.text.isprintable() or len(value.text) > 1000:
                report.error(value.span, f"the {what}: expected one name here", hint)
                return None
            if kind == "credential" and ("/" in value.text or value.text in (".", "..")):
                report.error(value.span, f"the {what}: a credential's name has no / in it", hint)
                return None
            return kind, value
    meant = closest(key.text, KINDS)
    hint = f'did you mean "{meant}"?' if meant else hint
    report.error(key.span, f"the {what} needs file, env or credential as its key", hint)
    return None


def _look(report: Report, value: Scalar, kept: Kept) -> None:
    """Report a secret that is not there, or that others can read."""
    try:
        if kept.kind == "file":
            found = kept.where.stat()
            if not stat.S_ISREG(found.st_mode):
                report.error(value.span, f"the {kept.what}: this is not a file")
                return
            if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                mode = stat.S_IMODE(found.st_mode)
                message = f"the {kept.what}: its file can be read by others (mode {mode:03o})"
                report.error(value.span, message, f"chmod 600 {kept.where}")
                return
        kept()
    except FileNotFoundError:
        folder = next((p for p in kept.where.parents if p.is_dir()), Path("/"))
        hint = f"put the token into that file, with mode 600 (looked in {folder})"
        report.error(value.span, f"the {kept.what}: its file does not exist", hint)
    except OSError as error:
        report.error(value.span, f"the {kept.what}: its file cannot be read: {error.strerror}")
    except GatewayError as error:
        report.error(value.span, str(error), error.hint)


def same_place(one: Kept, other: Kept) -> bool:
    """Do two senders take their token from one place, or hold the same one?"""
    if (one.kind, one.where) == (other.kind, other.where):
        return True
    if one.kind == "file" == other.kind and os.path.realpath(one.where) == os.path.realpath(
        other.where
    ):
        return True
    try:
        return one() == other()
    except GatewayError:
        return False
