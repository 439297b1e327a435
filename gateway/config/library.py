"""The device profiles: those shipped, and one's own, which win over shipped ones of their name."""

from __future__ import annotations

import re
from pathlib import Path
from shlex import quote
from typing import Final
from unicodedata import normalize

from attrs import frozen

import gateway
from gateway.config.document import Node, read_text
from gateway.config.draft import Draft, resolve
from gateway.config.profile import read_draft
from gateway.config.report import Report, closest, quoted
from gateway.config.values import Refused, Wrong, listed, text
from gateway.errors import ConfigurationError, Mistake
from gateway.metering.profile import DeviceProfile

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_PACKAGE: Final = Path(gateway.__file__).parent
_IN_WHEEL: Final = _PACKAGE / "_device_profiles"
SHIPPED: Final = _IN_WHEEL if _IN_WHEEL.is_dir() else _PACKAGE.parent / "device_profiles"
_MISNAMED: Final = re.compile(r"[^.].*\.ya?ml(\.txt)?", re.IGNORECASE)
_MOST_NAMED: Final = 5
"""Names that a suggestion lists."""
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


@frozen
class Checked:
    """A profile without a mistake, and what a person should look at nevertheless."""

    profile: DeviceProfile
    warnings: tuple[Mistake, ...]


def file_name(path: Path) -> str:
    """What the file of a profile has to be called, so that it is found: its own name if that is."""
    stem = re.sub(r"(\.(ya?ml|txt))+$", "", path.name, flags=re.IGNORECASE)
    if path.suffix == ".yaml" and _NAME.fullmatch(path.stem):
        return path.name
    plain = normalize("NFKD", stem.casefold().replace("æ", "ae").replace("ø", "o"))
    words = re.sub("[^a-z0-9._-]+", "-", plain.encode("ascii", "ignore").decode())
    return f"{words.strip('-._')[:64] or 'my-meter'}.yaml"


class Library:
    """Every profile by its name. A file is read when it is asked for, once."""

    def __init__(self, own: Path | None = None, *, shipped: Path = SHIPPED) -> None:
        self._folders = tuple(folder for folder in (own, shipped) if folder is not None)
        self._profiles = _SHIPPED if self._folders == (SHIPPED,) else {}
        self.warnings: list[Mistake] = []
        """What a person should look at in those of one's own that were read."""

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

    def misnamed(self) -> tuple[tuple[Path, str], ...]:
        """Files among one's own that are not found by their name, and what to call them."""
        return tuple(
            (path, file_name(path))
            for folder in self._folders[:-1]
            if folder.is_dir()
            for path in sorted(folder.iterdir())
            if _MISNAMED.fullmatch(path.name) and path.name != file_name(path)
        )

    def get(self, name: str) -> DeviceProfile:
        """One profile, with what it extends resolved.

        Raises UnknownProfile (a KeyError), or ConfigurationError where its file has mistakes.
        """
        if name not in self._profiles:
            path = self._find(name)
            if path is None:
                raise UnknownProfile(name, self._suggestion(name))
            draft = self._draft(path, ())
            self._profiles[name] = resolve(name, draft)
            if path.parent in self._folders[:-1]:
                self.warnings += draft.warnings
        return self._profiles[name]

    def all(self) -> tuple[DeviceProfile, ...]:
        """Every profile, in the order of the names. Raises ConfigurationError for all mistakes."""
        found, mistakes = self._read()
        if mistakes:
            raise ConfigurationError(mistakes)
        return found

    def sound(self) -> tuple[DeviceProfile, ...]:
        """Every profile without a mistake, in the order of the names."""
        return self._read()[0]

    def check(self, path: Path) -> Checked:
        """A profile from any file, as if it lay among one's own. Raises ConfigurationError."""
        draft = self._draft(path, ())
        return Checked(resolve(path.stem, draft), draft.warnings)

    def _read(self) -> tuple[tuple[DeviceProfile, ...], list[Mistake]]:
        found, mistakes = [], []
        for name in self.names():
            try:
                found.append(self.get(name))
            except ConfigurationError as error:
                mistakes += [m for m in error.mistakes if m not in mistakes]
        return tuple(found), mistakes

    def _suggestion(self, name: str) -> str:
        """A question to a person who wrote a name that there is not; empty where none is near."""
        for path, right in self.misnamed():
            if name.casefold() in (path.name.casefold(), path.stem.casefold(), right[:-5]):
                return f"rename {quoted(path.name)} to {right}, and write {right[:-5]}"
        names = self.names()
        bare = _bare(name)
        found = [known for known in names if len(bare) > 1 and bare in _bare(known)]
        found = [known for known in found if bare == _bare(known)] or found
        if len(found) > _MOST_NAMED:
            return f"{len(found)} names have it: `meter-gateway profiles list {quote(name)}`"
        if not found and (near := closest(name, names)):
            found = [near]
        return f"did you mean {listed([quoted(each) for each in found])}?" if found else ""

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
                message = f"extends: there is no profile {quoted(name)}"
                report.error(node.span, message, self._suggestion(name))
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


def _bare(name: str) -> str:
    """Letters and digits only: "EM-24" and em24 are the same."""
    return re.sub("[^a-z0-9]", "", name.casefold())
