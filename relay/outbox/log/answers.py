"""The beginnings of answers, kept beside their attempts: few endpoints ask for it, and the others pay nothing."""

from collections.abc import Iterable

import sqlalchemy as sa

from relay.outbox.records import Attempt
from relay.outbox.schema import answers


def has_answer(tries: Iterable[Attempt]) -> bool:
    return any(attempt.answer is not None for attempt in tries)


def keep_answers(connection: sa.Connection, tries: Iterable[Attempt]) -> None:
    """Write the answers of these attempts, if any has one to be kept.

    Only of what is still held: where data was purged meanwhile, an answer may repeat it.
    """
    rows = [
        {
            "lane": attempt.lane,
            "sequence": attempt.sequence,
            "number": attempt.number,
            "at": attempt.at,
            "text": attempt.answer,
        }
        for attempt in tries
        if attempt.answer is not None
    ]
    if rows:
        connection.execute(sa.insert(answers), rows)
