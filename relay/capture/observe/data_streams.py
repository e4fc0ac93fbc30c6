"""Limits on the data streams that participants open in an observed room.

Every reader of the SDK that is neither read to its end nor closed keeps all that its sender sends, and takes a look at
each event of the process, for as long as the process lives.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

from livekit import rtc

MOST_OPEN = 16
"""Streams of one sender that are read at a time. One more ends the reading of the oldest."""

OnByteStream = Callable[[rtc.ByteStreamReader, str], None]


class Readings:
    """Reads streams side by side, a bounded number of each sender."""

    def __init__(self) -> None:
        self._of: dict[str, list[asyncio.Task[None]]] = {}

    def add(self, reader: rtc.TextStreamReader, sender: str, read: Coroutine[Any, Any, None]) -> None:
        """Run ``read``, and close the stream when it is over, whatever it ends with."""
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
        """Read no more: a stream that its sender leaves open must not keep the room from being left."""
        for theirs in self._of.values():
            for task in theirs:
                task.cancel()


def with_byte_streams_of(room: rtc.Room, identity: str) -> rtc.Room:
    """The room, with the byte streams of others than ``identity`` closed before a handler sees them.

    ``RemoteSession`` ignores those streams and leaves them open.
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
