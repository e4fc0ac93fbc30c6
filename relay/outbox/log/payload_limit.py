"""Limits event size: a larger event is replaced by a notice, and never blocks its stream."""

import logging

from relay.events.envelope import LoggedEvent, StreamEvent
from relay.events.omission import omitted
from relay.outbox.records import Record, record

LARGEST_BODY = 256 * 1024
"""Bytes. Many receivers refuse larger requests."""
LARGE_BODY = 20_000
"""Bytes. Standard Webhooks asks for payloads below this."""

_log = logging.getLogger(__name__)


class Sizing:
    """Makes the records of one stream. Each kind of problem is reported to the operator once per stream."""

    def __init__(self, stream_id: str) -> None:
        self._stream_id = stream_id
        self._told: set[int] = set()

    def record(self, event: LoggedEvent) -> Record:
        """Return the event as it is logged.

        Over 256 KiB the participant's attributes are removed. If that is not enough, the event is replaced: same id,
        same sequence, and the stream ends where it would have ended.
        """
        whole = record(event)
        size = len(whole.body)
        if size > LARGE_BODY:
            self._tell(whole, LARGEST_BODY if size > LARGEST_BODY else LARGE_BODY)
        if size <= LARGEST_BODY:
            return whole
        if isinstance(event, StreamEvent):
            omitted_before = event.participant.attributes_omitted
            omitted_now = omitted_before + len(event.participant.attributes)
            bare = event.participant.model_copy(update={"attributes": {}, "attributes_omitted": omitted_now})
            event = event.model_copy(update={"participant": bare})
            if len((shorter := record(event)).body) <= LARGEST_BODY:
                return shorter
        replacement = record(omitted(event, size=size, limit=LARGEST_BODY))
        return replacement._replace(closes=whole.closes)

    def _tell(self, whole: Record, limit: int) -> None:
        if limit in self._told:
            return
        self._told.add(limit)
        where = (self._stream_id, whole.type, len(whole.body), limit)
        if limit == LARGEST_BODY:
            _log.error(
                "stream %s: %s of %d bytes is over the limit of %d: it goes without the participant's attributes, or "
                "is replaced by an event that says so; further ones on this stream are not reported here",
                *where,
            )
        else:
            _log.warning(
                "stream %s: %s of %d bytes: receivers may refuse what is over %d; include less for those that do; "
                "further ones on this stream are not reported here",
                *where,
            )
