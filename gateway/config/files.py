"""Files and folders that the configuration names, relative to its own folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

from gateway.config.document import Node
from gateway.config.report import did_you_mean
from gateway.config.values import Reader, Wrong, text


@frozen
class Place:
    """Where the configuration lies and runs."""

    folder: Path
    environment: Mapping[str, str]
    look: bool = True
    """Are tokens needed, so that they have to be there?"""


def resolved(folder: Path) -> Reader[str]:
    """A path as it is to be opened."""

    def read(node: Node) -> str:
        return str(folder / text(node))

    return read


def existing_file(folder: Path) -> Reader[str | None]:
    """A file that has to be there and readable."""
    where = resolved(folder)

    def read(node: Node) -> str:
        path = Path(where(node))
        try:
            if path.is_file():
                with path.open("rb"):
                    return str(path)
            problem = "is not a file" if path.exists() else "does not exist"
        except OSError as error:
            problem = f"cannot be read: {error.strerror}"
        raise Wrong(f"{path} {problem}", _neighbour(path))

    return read


def existing_folder(folder: Path) -> Reader[Path | None]:
    """A folder that has to be there."""
    where = resolved(folder)

    def read(node: Node) -> Path:
        path = Path(where(node))
        try:
            if path.is_dir():
                return path
            problem = "is not a folder" if path.exists() else "does not exist"
        except OSError as error:
            problem = f"cannot be read: {error.strerror}"
        raise Wrong(f"{path} {problem}", _neighbour(path))

    return read


def _neighbour(path: Path) -> str:
    """A suggestion: what lies in the same folder under nearly that name."""
    try:
        return did_you_mean(path.name, [other.name for other in path.parent.iterdir()])
    except OSError:
        return ""
