"""Joins a job's room, with what livekit-agents offers no option for (1.8.9)."""

from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from livekit import rtc
from livekit.agents import AutoSubscribe, JobContext

LONGEST_STREAM = 1 << 20
"""Bytes of a data stream, decompressed. An agent's session sends less: what the SDK takes of it over TCP is as long."""


async def join_room(context: JobContext) -> None:
    """Connect the job to its room, subscribed to nothing."""
    _limit_streams(context.room)
    # With one peer connection the SDK collects subscriptions for 150 ms before it negotiates, after the server has done
    # the same: the first frame of every track would come 0.2 s later (livekit-rtc 1.2, livekit-server 1.13).
    await context.connect(auto_subscribe=AutoSubscribe.SUBSCRIBE_NONE, single_peer_connection=False)
    # LiveKit ends a job once a participant with the attribute lk.simulator leaves. Participants may set attributes, and
    # so anybody could send the relay away. A private name, checked by tests/live/test_limits.py.
    context.room.off("participant_disconnected", context._on_simulator_disconnected)  # noqa: SLF001 - see above


def _limit_streams(room: rtc.Room) -> None:
    # A sender may compress hundreds of megabytes into a stream of a few hundred kilobytes, and the SDK holds it all for
    # a reader. JobContext.connect passes no such option on.
    connect = room.connect

    def bounded(url: str, token: str, options: rtc.RoomOptions) -> Coroutine[Any, Any, None]:
        limited = replace(options, data_stream=rtc.DataStreamOptions(max_payload_byte_length=LONGEST_STREAM))
        return connect(url, token, limited)

    room.connect = bounded  # type: ignore[method-assign,assignment]  # see above
