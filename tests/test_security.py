"""What code and configuration may not have: a way around TLS, or one to write to a meter; nor may
a text from outside have a line of the log."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.logbook import JsonFormatter, LogfmtFormatter

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "gateway").rglob("*.py"))
FIELD = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|[^ "=\\]+)(?: |$)')
"""One field of a line in logfmt."""
SCHEMAS = sorted((ROOT / "gateway").rglob("*.schema.json"))


def keys(schema: object) -> Iterator[str]:
    """Every key that a file may have."""
    if isinstance(schema, dict):
        for name, inside in schema.items():
            if name in ("properties", "patternProperties") and isinstance(inside, dict):
                yield from inside
            yield from keys(inside)
    elif isinstance(schema, list):
        for one in schema:
            yield from keys(one)


def test_no_key_turns_tls_off() -> None:
    known = {key for path in SCHEMAS for key in keys(json.loads(path.read_text()))}
    assert {"tls", "ca", "token", "registers"} <= known
    suspect = re.compile("verify|insecure|unsafe|skip|trust|check_host|hostname|allow|ssl")
    assert [key for key in known if suspect.search(key)] == []


@pytest.mark.parametrize(
    "way",
    [
        r"CERT_NONE|CERT_OPTIONAL",
        r"check_hostname\s*=",
        r"verify\s*=\s*False",
        r"_create_unverified|SSLContext\((?!ssl\.PROTOCOL_TLS_CLIENT\))",
        r"trust_env\s*=\s*True|follow_redirects\s*=\s*True",
        r"yaml\.(unsafe_)?load|pickle|marshal|shelve",
        r"\beval\(|\bexec\(|shell\s*=\s*True|os\.system",
        r"write_(single_)?(coil|register)s?\(|mask_write|WriteMultiple|WriteSingle",
    ],
)
def test_no_line_of_the_program_has_a_dangerous_way(way: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in SOURCES
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if re.search(way, line)
    ]
    assert found == []


@given(
    st.text(
        st.sampled_from("\"='# \\\n\r\t\0\x1b\x07\x7f\x85\x9b\u2028\u2029\u202e\ufeff\ud800")
        | st.characters(),
        max_size=300,
    )
)
def test_no_text_from_outside_writes_a_line_or_a_field_of_its_own(text: str) -> None:
    record = logging.LogRecord("gateway", logging.WARNING, "", 0, "", (), None)
    record.event, record.fields = "meter.offline", {"meter": text, "bus": "riser"}
    for formatter in (LogfmtFormatter(), JsonFormatter()):
        line = formatter.format(record)
        assert line.isprintable()
        assert len(line) < 1_000
    names = [name for name, _ in FIELD.findall(LogfmtFormatter().format(record))]
    assert FIELD.sub("", LogfmtFormatter().format(record)).strip() == ""
    assert names == ["level", "event", "meter", "bus", "hint"]
