"""Records in one piece, as they leave SQLite and as they are rung for: columns as JSON, then the bodies as they are."""

from collections.abc import Iterator, Sequence
from typing import Any

from relay.events.envelope import Delivery
from relay.outbox.records import Record

SEPARATOR = b"\x1e"
"""Stands in no JSON: RFC 7464 separates JSON texts by it."""
_DELIVERY = {one.value: one for one in Delivery}


def columns(key: int, record: Record) -> tuple[object, ...]:
    """All but the body, behind a number that tells whose record it is."""
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
    """The records of rows that look like :func:`columns`. Raises ValueError or LookupError where they do not."""
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
