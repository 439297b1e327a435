"""Who sends what: the series of a configuration, and what still waits of others."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.config.meters import spread
from gateway.config.settings import GatewayConfig
from gateway.metering.reading import Series


def series_of(config: GatewayConfig) -> list[Series]:
    """What it sends, in its order."""
    return [
        Series(s.key, meter.name, s.quantity, s.as_, s.every, s.sender)
        for meter in config.meters
        for s in meter.send
    ]


def heir(config: GatewayConfig, series: Series) -> str:
    """Who sends what waits of a series that is not configured any more: the sender that it had, and
    where that has gone too, one of its import. Where there is none it stays with the old one, and
    waits."""
    senders = config.energinet.senders
    if any(sender.name == series.sender for sender in senders):
        return series.sender
    among = [sender for sender in senders if sender.import_name == series.key.import_name]
    return spread(series.meter, among).name if among else series.sender


def unserved(config: GatewayConfig, pending: Mapping[str, int]) -> dict[str, int]:
    """Of what waits by sender, what nobody sends."""
    known = {sender.name for sender in config.energinet.senders}
    return {name: count for name, count in pending.items() if count and name not in known}
