"""Where things are: time zones, hosts and ports."""

from __future__ import annotations

import ipaddress
import re
from zoneinfo import ZoneInfo, available_timezones

from gateway.config.document import Node
from gateway.config.report import did_you_mean, quoted
from gateway.config.values import Wrong, scalar


def zone(node: Node) -> str:
    """An IANA time zone."""
    found = scalar(node, "a time zone such as Europe/Oslo").text
    try:
        if re.fullmatch(r"[A-Za-z0-9_+/-]{1,64}", found):
            ZoneInfo(found)
            return found
    except (KeyError, ValueError, OSError):
        pass
    names = available_timezones()
    by_city = {known.rpartition("/")[2].casefold(): known for known in sorted(names)}
    city = by_city.get(found.strip().replace(" ", "_").rpartition("/")[2].casefold())
    # Never Etc/GMT+1, which is an hour behind.
    hint = did_you_mean(found, [name for name in names if not re.search("GMT|UTC|[0-9]", name)])
    if city and not re.search(r"[0-9]", found):
        hint = f'did you mean "{city}"?'
    raise Wrong(f"{quoted(found)} is not a time zone", hint or "an IANA name such as Europe/Oslo")


def fixed(name: str) -> str:
    """What a person should know who wrote `Etc/GMT-1` or the like; empty for other zones."""
    match = re.fullmatch(r"Etc/GMT([+-])([0-9]{1,2})", name)
    if match is None or not int(match[2]):
        return ""
    way = "behind" if match[1] == "+" else "ahead of"
    return f"{name} is {int(match[2])} h {way} UTC, and knows no summer time"


_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?")


def is_host(host: str) -> bool:
    """Is it an IP address or a host name?"""
    if re.fullmatch(r"[0-9.]+", host) or ":" in host:
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return True
    return len(host) <= 253 and _HOST.fullmatch(host) is not None


def host_port(node: Node) -> tuple[str, int]:
    """`192.168.10.20:502`, `meter.local:502`, `[::1]:502`; 502 where no port is given."""
    found = scalar(node, "an address such as 192.168.10.20:502").text.strip()
    if "://" in found:
        rest = found.partition("://")[2].strip("/")
        raise Wrong(f"{quoted(found)}: an address has no scheme", f'did you mean "{rest}"?')
    whole = re.fullmatch(r"([0-9]{1,3}(?:[.,][0-9]{1,3}){3})(?:[.,:;/ ]([0-9]{1,5}))?", found)
    right = ".".join(str(int(n)) for n in re.split("[.,]", whole[1])) if whole else ""
    hint = f'did you mean "{right}:{whole[2] or 502}"?' if whole and is_host(right) else ""
    match = re.fullmatch(r"\[([^\[\]]+)\](?::([0-9]{1,5}))?|([^:\[\]]+)(?::([0-9]{1,5}))?", found)
    if match is None:
        last = found.rpartition(":")
        v6 = ":" in last[0] and is_host(last[0]) and last[2].isdecimal()
        guess = f'did you mean "[{last[0]}]:{last[2]}"?' if v6 else "host:port, the port a number"
        raise Wrong(f"{quoted(found)} is not an address", hint or guess)
    host, port = match[1] or match[3], int(match[2] or match[4] or 502)
    if not is_host(host) or (match[1] is not None and ":" not in host):
        raise Wrong(f"{quoted(host)} is neither an IP address nor a host name", hint)
    if not 1 <= port <= 65535:
        raise Wrong(f"port {port} is out of range: it has to be 1 to 65535")
    return host, port


def is_loopback(host: str) -> bool:
    """Does an address never leave this machine?"""
    if host.casefold() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
