"""The times of ``stream.started`` are in order, and tell what was missed wherever that can be known."""

from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from relay.capture.audio.source import AudioSource
from relay.capture.session.stream_session import listening
from tests.support.audio.speech import a_track

moments = st.integers(min_value=0, max_value=10**13)


@given(moments, st.none() | moments, st.none() | moments, st.none() | moments, st.booleans())
def test_times_are_in_order_whatever_was_seen_and_however_late(
    subscribed_at: int, first_frame_at: int | None, published_at: int | None, joined_at: int | None, muted: bool
) -> None:
    track = a_track(
        cast("AudioSource", None),
        subscribed_at=subscribed_at,
        joined_at=joined_at,
        published_at=published_at,
        muted=muted,
    )
    began = listening(track, first_frame_at)
    assert (began.first_frame_at, began.joined_at, began.muted) == (first_frame_at, joined_at, muted)
    assert began.subscribed_at <= subscribed_at
    assert (began.missed_ms is None) == (first_frame_at is None or published_at is None)
    if first_frame_at is not None:
        assert began.subscribed_at <= first_frame_at
        if began.missed_ms is not None and published_at is not None:
            assert began.missed_ms == max(0, first_frame_at - published_at)
