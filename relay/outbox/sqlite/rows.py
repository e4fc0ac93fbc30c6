"""Packs records as SQLite returns them and as rings carry them: columns as JSON, then the raw bodies."""

from collections.abc import Iterator, Sequence
from typing import Any

from relay.events.envelope import Delivery
from relay.outbox.records import Record

SEPARATOR = b"\x1e"
"""Occurs in no JSON: RFC 7464 separates JSON texts by it."""
_DELIVERY = {one.value: one for one in Delivery}


def columns(key: int, record: Record) -> tuple[object, ...]:
    """All columns but the body, after a number that identifies the record's owner."""
    return (
        key,
        record.sequence,
        record.id,
        record.type,
        record.delivery.value,
        record.utterance,
        record.revision,
        record.emitted_at,
        record.expires_at,
        record.closes,
    )


def keyed_records(rows: Sequence[Sequence[Any]], bodies: Sequence[bytes]) -> Iterator[tuple[int, Record]]:
    """Decode rows that look like :func:`columns`. Raises ValueError or LookupError if they do not."""
    for row, body in zip(rows, bodies, strict=True):
        key, sequence, id_, type_, delivery, utterance, revision, emitted_at, expires_at, closes = row
        yield (
            key,
            Record(
                sequence,
                id_,
                type_,
                _DELIVERY[delivery],
                utterance,
                revision,
                emitted_at,
                expires_at,
                body,
                bool(closes),
            ),
        )
