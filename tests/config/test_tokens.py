from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.config import Loaded
from gateway.config.tokens import Kept
from gateway.errors import GatewayError, Mistake, NotPermitted

Load = Callable[..., Loaded]
Mistakes = Callable[..., list[Mistake]]

SECRET = "eyJhbGciOi-very-secret"


def test_a_token_is_read_again_at_each_call(loaded: Load, whole: str, folder: Path) -> None:
    source = loaded(whole).config.energinet.senders[0].token
    assert source().reveal() == "abc-123"
    (folder / "basement.token").write_text("  new-1 \r\n")
    assert source().reveal() == "new-1"
    (folder / "basement.token").unlink()
    with pytest.raises(GatewayError, match="sender basement") as caught:
        source()
    assert caught.value.hint


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o610, 0o606])
def test_a_token_file_that_others_can_use_is_a_mistake(
    mistakes: Mistakes, whole: str, folder: Path, mode: int
) -> None:
    (folder / "basement.token").chmod(mode)
    found = mistakes(whole)
    assert [(m.line, m.suggestion) for m in found] == [
        (6, f"chmod 600 {folder / 'basement.token'}")
    ]


def test_a_token_file_that_is_not_there_is_a_mistake(
    mistakes: Mistakes, whole: str, folder: Path
) -> None:
    (folder / "basement.token").unlink()
    assert ["does not exist" in m.message for m in mistakes(whole)] == [True]
    (folder / "basement.token").mkdir(0o700)
    assert ["not a file" in m.message for m in mistakes(whole)] == [True]


@pytest.mark.parametrize(
    "content", [b"", b" \n", b"a b", b"caf\xc3\xa9", b"a\nb", b"\xff\xfe", b"a\x00"]
)
def test_a_token_is_one_word_of_plain_characters(
    mistakes: Mistakes, whole: str, folder: Path, content: bytes
) -> None:
    (folder / "basement.token").write_bytes(content)
    assert [m.line for m in mistakes(whole)] == [6]


def test_commands_that_send_nothing_do_not_need_the_token(
    loaded: Load, whole: str, folder: Path
) -> None:
    (folder / "basement.token").unlink()
    assert loaded(whole, tokens=False).config.meters


def test_a_token_may_come_from_the_environment(
    loaded: Load, mistakes: Mistakes, whole: str
) -> None:
    text = whole.replace("{file: basement.token}", "{env: GATE_TOKEN}")
    token = loaded(text, {"GATE_TOKEN": "abc"}).config.energinet.senders[0].token
    assert token().reveal() == "abc"
    assert ["not set" in m.message for m in mistakes(text, {})] == [True]


def test_a_systemd_credential_is_read_in_the_service_and_a_warning_outside(
    loaded: Load, mistakes: Mistakes, whole: str, folder: Path
) -> None:
    text = whole.replace("{file: basement.token}", "{credential: gate}")
    outside = loaded(text, {})
    assert ["systemd credential" in w.message for w in outside.warnings] == [True]
    held = folder / "credentials"
    held.mkdir()
    inside = {"CREDENTIALS_DIRECTORY": str(held)}
    assert ["no credential of this name" in m.message for m in mistakes(text, inside)] == [True]
    (held / "gate").write_text("abc\n")
    assert loaded(text, inside).config.energinet.senders[0].token().reveal() == "abc"
    for name in ("../gate", "a/b", ".."):
        escaping = whole.replace("{file: basement.token}", f"{{credential: {name}}}")
        assert len(mistakes(escaping, inside)) == 1


def test_two_senders_never_have_one_token(mistakes: Mistakes, whole: str, folder: Path) -> None:
    os.symlink("basement.token", folder / "other.token")
    for place, environment in (
        ("{file: basement.token}", {}),
        ("{file: other.token}", {}),
        ("{env: COPY}", {"COPY": "abc-123"}),
    ):
        text = whole.replace(
            "defaults:\n", f"    - {{name: roof, token: {place}}}\ndefaults:\n"
        ).replace("    unit: ", "    sender: roof\n    unit: ")
        assert ["is that of sender" in m.message for m in mistakes(text, environment)] == [True]


@pytest.mark.parametrize(
    "token",
    [
        f"token: {SECRET}",
        f'token: "{SECRET}"',
        f"token: [{SECRET}]",
        f"token: {{file: {SECRET}}}",
        f"token: {{env: {SECRET}}}",
        f"token: {{fiel: {SECRET}}}",
        f"token: {{{SECRET}: file}}",
        f"token: {{file: {SECRET}, env: {SECRET}}}",
        f"token: !!str {SECRET}",
        f"token: &a {SECRET}",
        f"token:\n        {SECRET}",
        f"token:\n        file: {SECRET}",
        f"token:\n        - {SECRET}",
        f"token: |\n        {SECRET}",
        f"tokn: {SECRET}",
        f"Token: {SECRET}",
        f"api_token: {SECRET}",
        f"tokens: {{file: {SECRET}}}",
        f"token: {{file: {SECRET}",
        f"token: '{SECRET}",
        f'token: "{SECRET}\\q"',
        f"token: {{file: {SECRET}}}: x",
        f"token:\n       file: {SECRET}\n      file: {SECRET}",
        f"token:\t{SECRET}",
        f'token:\n        file: "{SECRET}\\q"',
        f'token:\n        # kept here\n\n        "{SECRET}\\q"',
        f"token: @{SECRET}",
        f"token: {SECRET}: b",
        f"token: {SECRET}\n      token: {SECRET}",
    ],
)
def test_what_stands_under_token_is_never_shown(mistakes: Mistakes, whole: str, token: str) -> None:
    found = mistakes(whole.replace("token: {file: basement.token}", token))
    assert found
    for mistake in found:
        assert SECRET not in repr(mistake)


def test_a_token_with_a_comma_inside_braces_is_hidden_to_its_end(
    mistakes: Mistakes, whole: str
) -> None:
    sender = "    - {name: roof, token: 123456,7890}\n"
    found = mistakes(whole.replace("defaults:\n", f"{sender}defaults:\n"))
    assert any(m.source == "    - {name: roof, token: ***}" for m in found)
    assert "7890" not in repr(found)


def test_a_password_in_the_address_of_a_proxy_is_not_shown(mistakes: Mistakes, whole: str) -> None:
    proxy = f"energinet:\n  proxy: {{url: 'http://user:{SECRET}@proxy:3128'}}\n"
    found = mistakes(whole.replace("energinet:\n", proxy))
    assert len(found) == 1
    assert SECRET not in repr(found)


def test_credentials_of_a_proxy_may_hold_letters_of_any_language(tmp_path: Path) -> None:
    kept = Kept("file", tmp_path / "proxy", {}, "credentials of the proxy", pair=True)
    kept.where.write_text("käthe:p@ss/w:rd 100%\n")
    assert kept().reveal() == "käthe:p@ss/w:rd 100%"  # as tests/energinet/test_client.py sends it
    for wrong in ("käthe:pass".encode("latin-1"), b"user:pa\x07ss", b"user:pa\nss", b"user"):
        kept.where.write_bytes(wrong)
        with pytest.raises(GatewayError):
            kept()


def test_a_token_that_this_user_may_not_read_is_no_crash(tmp_path: Path) -> None:
    source = Kept("file", tmp_path / "x" / "y", {}, "token of sender a")
    with pytest.raises(GatewayError):
        source()
    closed = tmp_path / "closed.token"
    closed.write_text("abc")
    closed.chmod(0)
    me = os.geteuid()
    if me == 0:  # root may read everything
        os.seteuid(65534)
    try:
        with pytest.raises(NotPermitted):
            Kept("file", closed, {}, "token of sender a")()
    finally:
        os.seteuid(me)


def test_a_huge_file_is_not_taken_for_a_token(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"a" * 20_000)
    with pytest.raises(GatewayError, match="too large"):
        Kept("file", tmp_path / "x", {}, "token of sender a")()
