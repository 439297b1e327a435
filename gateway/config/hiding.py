"""What must not be shown of a file: whatever stands under `token` and its like."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from functools import lru_cache
from typing import Final

HIDDEN: Final = "***"
_SECRET: Final = ("token", "credentials", "password", "secret")
_KEY: Final = re.compile(r"""([\w-]+)["']?\s*:""")


@lru_cache(maxsize=512)
def is_secret_key(key: str) -> bool:
    """Does a key hold a secret? Misspellings count: `tokn: abc` hides abc too."""
    folded = key.casefold()[:80]
    near = get_close_matches(folded, _SECRET, n=1, cutoff=0.75)
    return bool(near) or any(word in folded for word in (*_SECRET, "credential"))


def hide_by_eye(lines: Sequence[str], number: int) -> str:
    """Line `number` (from 1) with secrets hidden, for a text that cannot be parsed."""
    line = lines[number - 1] if number <= len(lines) else ""
    indent = _indent(line)
    for above in reversed(lines[: number - 1]):
        if not above.strip() or above.lstrip().startswith("#") or _indent(above) >= indent:
            continue
        indent = _indent(above)
        keys = _KEY.findall(above)
        if keys and is_secret_key(keys[-1]):
            return line[: _indent(line)] + HIDDEN
        if not indent:
            break
    for found in _KEY.finditer(line):
        if is_secret_key(found[1]) and line[found.end() :].strip():
            return line[: found.end()] + " " + HIDDEN
    return line


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
