"""The part of the configuration under `energinet`."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from gateway.clock import DAY, HOUR, MINUTE, SECOND
from gateway.config import keys
from gateway.config.addresses import is_host, is_loopback
from gateway.config.document import Node, Scalar
from gateway.config.fields import Fields, items, table
from gateway.config.files import Place, existing_file
from gateway.config.measures import duration, size
from gateway.config.report import Report, Span
from gateway.config.tokens import Kept, read_secret, same_place, unset
from gateway.config.values import Wrong, choice, name, scalar
from gateway.energinet.limits import MAX_BODY, MAX_SENDERS, REQUEST_INTERVAL
from gateway.energinet.settings import EnerginetSettings, Proxy, SenderSettings

DEFAULT_URL: Final = "https://www.energinet.net/apiImport/data"


def read_energinet(report: Report, node: Node | None, at: Span, place: Place) -> EnerginetSettings:
    """The whole of `energinet`."""
    body = table(report, node, "energinet") if node is not None else None
    if body is None:
        return EnerginetSettings(senders=())
    fields = Fields(report, body, "energinet", keys.ENERGINET, at=at, elsewhere=keys.BELONGS)
    url = fields.get("url", http_url, DEFAULT_URL)
    loopback = is_loopback(urlsplit(url).hostname or "")
    # A url that could not be read may have been a loopback address.
    local = loopback or not fields.sound("url")
    if url.startswith("http://") and not loopback:
        message = "url: http:// sends the token in the clear: only for a loopback address"
        fields.error("url", message, f'did you mean "https{url.removeprefix("http")}"?')
    least = SECOND // 10 if local else REQUEST_INTERVAL
    most = 100_000_000 if local else MAX_BODY
    interval = fields.get("request_interval", duration(least, DAY), REQUEST_INTERVAL)
    return EnerginetSettings(
        senders=_senders(fields, place),
        url=url,
        timestamps=fields.get("timestamps", choice("local", "offset", "utc"), "local"),
        label=fields.get("label", choice("start", "end"), "start"),
        linger=fields.get("linger", duration(0, HOUR), 30 * SECOND),
        request_interval=interval,
        max_payload=fields.get("max_payload", size(1_000, most), MAX_BODY),
        timeout=fields.get("timeout", duration(SECOND, 10 * MINUTE), 60 * SECOND),
        ca=fields.get("ca", existing_file(place.folder), None),
        proxy=_proxy(fields, place),
    )


def http_url(node: Node) -> str:
    """An http or https address without a user, a query or a fragment."""
    found = scalar(node, "an address that begins with https://").text
    if not found.isascii() or not found.isprintable() or " " in found:
        raise Wrong("an address has only plain characters")
    try:
        parts = urlsplit(found)
        _ = parts.port
    except ValueError:
        raise Wrong("this is not an address", f"such as {DEFAULT_URL}") from None
    if "@" in parts.netloc:
        raise Wrong("an address may hold no user and no password", "use `credentials` or `token`")
    if parts.scheme not in ("http", "https") or not is_host(parts.hostname or ""):
        bare = "://" not in found and is_host(found.partition("/")[0].partition(":")[0])
        hint = f'did you mean "https://{found}"?' if bare else f"such as {DEFAULT_URL}"
        raise Wrong("an address begins with https:// and a host", hint)
    if parts.query or parts.fragment:
        raise Wrong("an address has no ? and no #")
    return found


def _proxy(fields: Fields, place: Place) -> Proxy | None:
    node = fields.node("proxy")
    body = table(fields.report, node, "proxy") if node is not None else None
    if body is None:
        return None
    at = fields.at_key("proxy")
    inner = Fields(fields.report, body, "proxy", keys.PROXY, at=at, elsewhere=keys.BELONGS)
    address = inner.node("url")
    if isinstance(address, Scalar) and "@" in address.text:
        fields.report.hide(address.span)
    url = inner.require("url", http_url, "http://localhost", example="url: http://proxy.local:3128")
    credentials = inner.node("credentials")
    if credentials is None:
        return Proxy(url)
    kept = read_secret(
        fields.report,
        credentials,
        "credentials of the proxy",
        folder=place.folder,
        environment=place.environment,
        pair=True,
        look=place.look,
    )
    return Proxy(url, kept or unset("credentials of the proxy"))


def _senders(fields: Fields, place: Place) -> tuple[SenderSettings, ...]:
    """Every sender; none where one has no name, so that meters are not blamed for it."""
    report = fields.report
    node = fields.node("senders")
    if node is None:
        fields.missing("senders", "senders:  - {name: basement, token: {file: basement.token}}")
        return ()
    nodes = items(report, node, "senders")
    if nodes == ():
        report.error(fields.at_key("senders"), "senders: at least one sender is needed")
    senders: list[SenderSettings] = []
    tokens: list[tuple[str, Kept]] = []
    places: dict[str, Span] = {}
    counts: dict[str, int] = {}
    sound = True
    for entry in nodes or ():
        body = table(report, entry, "a sender")
        if body is None:
            sound = False
            continue
        for key, value in body.entries:
            if key.text not in keys.SENDER:  # perhaps the token, in the wrong place
                report.hide(value.span)
        inner = Fields(report, body, "a sender", keys.SENDER, elsewhere=keys.BELONGS)
        own = inner.require("name", name, "", example="name: basement")
        group = inner.get("import", name, "")
        if own and own in places:
            hint = "give one of them another name"
            inner.error("name", f'sender "{own}" stands twice', hint, first=places[own])
        elif own:
            places[own] = inner.at_value("name")
        counts[group] = counts.get(group, 0) + 1
        if counts[group] == MAX_SENDERS + 1 and inner.sound("import"):
            which = f'import "{group}"' if group else "one import"
            message = f"{which} has more than {MAX_SENDERS} senders"
            report.error(inner.at, message, "Energinet allows 50: name a second `import`")
        kept = _token(inner, own, place, tokens)
        what = f"token of sender {own}"
        sound = sound and inner.sound("name", "import")
        senders.append(SenderSettings(own, group, kept or unset(what)))
    return tuple(senders) if sound else ()


def _token(inner: Fields, own: str, place: Place, tokens: list[tuple[str, Kept]]) -> Kept | None:
    node = inner.node("token")
    if node is None:
        inner.missing("token", "token: {file: NAME.token}, {env: NAME} or {credential: NAME}")
        return None
    what = f"token of sender {own}" if own else "token"
    kept = read_secret(
        inner.report,
        node,
        what,
        folder=place.folder,
        environment=place.environment,
        look=place.look,
    )
    if kept is None:
        return None
    for other, theirs in tokens:
        if place.look and same_place(kept, theirs):
            message = f'the {what} is that of sender "{other}"'
            inner.error("token", message, "each sender of Energinet has a token of its own")
            break
    tokens.append((own, kept))
    return kept
