"""The device profiles: those shipped, and one's own, which win over shipped ones of their name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import gateway
from gateway.config.document import Node, read_text
from gateway.config.profile import Draft, read_draft, resolve
from gateway.config.report import Report, closest, quoted
from gateway.config.values import Refused, Wrong, text
from gateway.errors import ConfigurationError
from gateway.metering.profile import DeviceProfile

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_PACKAGE: Final = Path(gateway.__file__).parent
_IN_WHEEL: Final = _PACKAGE / "_device_profiles"
SHIPPED: Final = _IN_WHEEL if _IN_WHEEL.is_dir() else _PACKAGE.parent / "device_profiles"
_DEEPEST: Final = 8
"""Profiles that extend one another in a row."""
_SHIPPED: Final[dict[str, DeviceProfile]] = {}
"""Those that were read: they do not change while the program runs."""


class UnknownProfile(KeyError):
    """No profile has this name. `suggestion` is a question to the person, or empty."""

    def __init__(self, name: str, suggestion: str) -> None:
        super().__init__(name)
        self.name = name
        self.suggestion = suggestion

    def __str__(self) -> str:
        return f"there is no profile {quoted(self.name)}"


class Library:
    """Every profile by its name. A file is read when it is asked for, once."""

    def __init__(self, own: Path | None = None, *, shipped: Path = SHIPPED) -> None:
        self._folders = tuple(folder for folder in (own, shipped) if folder is not None)
        self._profiles = _SHIPPED if self._folders == (SHIPPED,) else {}

    def names(self) -> tuple[str, ...]:
        """The names of all profiles, sorted; nothing is read."""
        found = {
            path.stem
            for folder in self._folders
            if folder.is_dir()
            for path in folder.glob("*.yaml")
            if _NAME.fullmatch(path.stem)
        }
        return tuple(sorted(found))

    def get(self, name: str) -> DeviceProfile:
        """One profile, with what it extends resolved.

        Raises UnknownProfile (a KeyError), or ConfigurationError where its file has mistakes.
        """
        if name not in self._profiles:
            path = self._find(name)
            if path is None:
                word = closest(name, self.names())
                raise UnknownProfile(name, f'did you mean "{word}"?' if word else "")
            self._profiles[name] = resolve(name, self._draft(path, ()))
        return self._profiles[name]

    def all(self) -> tuple[DeviceProfile, ...]:
        """Every profile, in the order of the names. Raises ConfigurationError for all mistakes."""
        found, mistakes = [], []
        for name in self.names():
            try:
                found.append(self.get(name))
            except ConfigurationError as error:
                mistakes += [m for m in error.mistakes if m not in mistakes]
        if mistakes:
            raise ConfigurationError(mistakes)
        return tuple(found)

    def check(self, path: Path) -> DeviceProfile:
        """A profile from any file, as if it lay among one's own. Raises ConfigurationError."""
        return resolve(path.stem, self._draft(path, ()))

    def _find(self, name: str, *, after: Path | None = None) -> Path | None:
        """The file of a name, inside one of the folders and nowhere else.

        after: a file that extends its own name means the next one of that name.
        """
        if not _NAME.fullmatch(name):
            return None
        for folder in self._folders:
            path = folder / f"{name}.yaml"
            if path != after and path.is_file() and folder.resolve() in path.resolve().parents:
                return path
        return None

    def _draft(self, path: Path, chain: tuple[Path, ...]) -> Draft:
        chain = (*chain, path)

        def extend(node: Node, report: Report) -> Draft | None:
            try:
                name = text(node)
            except Wrong as wrong:
                report.error(node.span, f"extends: {wrong.message}", wrong.suggestion)
                return None
            except Refused:
                return None
            parent = self._find(name, after=path)
            if parent is None:
                word = closest(name, self.names())
                hint = f'did you mean "{word}"?' if word else ""
                report.error(node.span, f"extends: there is no profile {quoted(name)}", hint)
            elif parent in chain or len(chain) >= _DEEPEST:
                ring = " → ".join(each.stem for each in (*chain, parent))
                report.error(node.span, f"extends: the profiles extend one another: {ring}")
            else:
                try:
                    return self._draft(parent, chain)
                except ConfigurationError as error:
                    report.absorb(error.mistakes)
            return None

        return read_draft(path, read_text(path), extend)
