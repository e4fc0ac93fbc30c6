"""Limits the data streams that participants open in an observed room.

An SDK reader that is neither read to its end nor closed keeps all data that its sender sends, and processes each event
of the process, for as long as the process lives.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

from livekit import rtc

MOST_OPEN = 16
"""Concurrent streams per sender. One more ends the reading of the oldest."""

OnByteStream = Callable[[rtc.ByteStreamReader, str], None]


class Readings:
    """Reads streams concurrently, a bounded number per sender."""

    def __init__(self) -> None:
        self._of: dict[str, list[asyncio.Task[None]]] = {}

    def add(self, reader: rtc.TextStreamReader, sender: str, read: Coroutine[Any, Any, None]) -> None:
        """Run ``read``, and close the stream when it ends, however it ends."""
        theirs = self._of.setdefault(sender, [])
        if len(theirs) >= MOST_OPEN:
            theirs.pop(0).cancel()
        task = asyncio.create_task(read)
        theirs.append(task)

        def over(_: asyncio.Task[None]) -> None:
            reader.close()
            if task in theirs:
                theirs.remove(task)
            if not theirs and self._of.get(sender) is theirs:
                del self._of[sender]

        task.add_done_callback(over)

    def cancel(self) -> None:
        """Stop reading: a stream that its sender leaves open must not block leaving the room."""
        for theirs in self._of.values():
            for task in theirs:
                task.cancel()


def with_byte_streams_of(room: rtc.Room, identity: str) -> rtc.Room:
    """The room, with other participants' byte streams closed before a handler sees them.

    Only streams of ``identity`` pass. ``RemoteSession`` ignores the others and leaves them open.
    """
    return cast("rtc.Room", _OnlyFrom(room, identity))


class _OnlyFrom:
    def __init__(self, room: rtc.Room, identity: str) -> None:
        self._room, self._identity = room, identity

    def register_byte_stream_handler(self, topic: str, handler: OnByteStream) -> None:
        def chosen(reader: rtc.ByteStreamReader, sender: str) -> None:
            if sender == self._identity:
                handler(reader, sender)
            else:
                reader.close()

        self._room.register_byte_stream_handler(topic, chosen)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._room, name)
