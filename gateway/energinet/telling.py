"""What a sender says in the log: a change once, what goes on not again."""

from __future__ import annotations

from gateway.clock import Clock, Millis, about
from gateway.energinet.answer import Answer, Row
from gateway.energinet.batch import Batch
from gateway.energinet.draining import Draining
from gateway.energinet.response import Response
from gateway.energinet.verdicts import Outcome
from gateway.errors import GatewayError
from gateway.logbook import log


class Telling:
    """The troubles of one sender, from the first request that failed to the next that did not."""

    def __init__(self, sender: str, interval: Millis, clock: Clock) -> None:
        self.last = ""
        """What the last request came to: a row of the answer table, or why there was no answer."""
        self._sender = sender
        self._interval = interval
        self._clock = clock
        self._troubles: set[str] = set()
        self._since = 0.0
        self._requests = 0
        self._draining = Draining(interval)

    def unreadable(self, error: GatewayError) -> None:
        """There is no token to send with."""
        self.last = "token unreadable"
        self._trouble("upload.token", self.last, status="unreadable", source=str(error))

    def answered(
        self,
        answer: Answer,
        batch: Batch,
        outcome: Outcome,
        *,
        response: Response | None,
        reason: str,
        first: bool,
        pending: int,
        more: bool,
    ) -> None:
        """A request was made. `reason`: why there was no answer; `first`: it was the very first;
        `more`: not all that waits fitted.
        """
        status = answer.status or None
        self._log("upload.request", bytes=len(batch.data), values=batch.count, status=status)
        for event, fields in outcome.events:
            self._log(event, **fields)
        if answer.row is Row.LIST:
            self._went_well(batch, outcome, response, pending)
            now = self._clock.boottime()
            if said := self._draining.sent(outcome.confirmed, pending, more=more, now=now):
                self._log(said[0], **said[1])
        else:
            self._went_badly(answer, batch, outcome, response, reason, first=first)
        self.last = reason.partition(":")[0] or answer.row.value

    def _went_well(
        self, batch: Batch, outcome: Outcome, response: Response | None, pending: int
    ) -> None:
        if self._troubles:
            took = f"{self._clock.monotonic() - self._since:.0f}s"
            self._log("upload.recovered", requests=self._requests, **{"for": took})
            self._troubles.clear()
        elif not self.last:
            self._log(
                "upload.sent",
                values=batch.count,
                bytes=len(batch.data),
                meters=len(batch.values),
                confirmed=outcome.confirmed,
                pending=pending,
                duration=f"{response.duration:.1f}s" if response else None,
            )

    def _went_badly(
        self,
        answer: Answer,
        batch: Batch,
        outcome: Outcome,
        response: Response | None,
        reason: str,
        *,
        first: bool,
    ) -> None:
        row, status = answer.row, answer.status
        retry = about(outcome.slots * self._interval)
        if response is None:
            why, _, text = reason.partition(": ")
            fields = {"reason": why, "error": text, "values": batch.count, "retry": retry}
            self._trouble("upload.unanswered", why, **fields)
        elif row is Row.TOKEN:
            self._trouble("upload.token", row.value, status=status)
        elif row is Row.TOO_MANY and not first:  # we kept the window
            self._trouble("upload.token_shared", row.value)
        else:
            fields = {"values": batch.count, "reason": row.value, "retry": retry}
            self._trouble("upload.refused", f"{row.value} {status}", status=status, **fields)

    def _trouble(self, event: str, trouble: str, **fields: object) -> None:
        if not self._troubles:
            self._since = self._clock.monotonic()
            self._requests = 0
        self._requests += 1
        if trouble not in self._troubles:
            self._troubles.add(trouble)
            self._log(event, **fields)

    def _log(self, event: str, **fields: object) -> None:
        log(event, sender=self._sender, **fields)
