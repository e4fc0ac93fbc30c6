"""Writes a transcript as lines, text and WebVTT. Pure."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta

from relay.api.answers import TranscriptLine, iso
from relay.clock import epoch_ms
from relay.outbox.operator.views import EventView


def line(view: EventView) -> TranscriptLine | None:
    """The line of an ``utterance.completed``; None if nothing was said, or it is gone."""
    if not view.body:
        return None
    event = json.loads(view.body)
    data, timing = event["data"], event["timing"]
    text = " ".join((data.get("text") or "").split())
    if not text:
        return None
    occurred_at = timing["occurred_at"]
    end = epoch_ms(datetime.fromisoformat(occurred_at)) if occurred_at else view.emitted_at
    return TranscriptLine(
        participant=view.participant,
        name=event["participant"]["name"] or "",
        started_at=iso(end - (data.get("duration_ms") or 0)),
        ended_at=iso(end),
        text=text,
        language=data.get("language"),
        event_id=view.id,
    )


def as_text(lines: Sequence[TranscriptLine]) -> str:
    """``2026-11-21T10:15:05.100Z Alice: Hello world.``"""
    return "".join(f"{each.started_at} {_one_line(_speaker(each))}: {each.text}\n" for each in lines)


def as_vtt(lines: Sequence[TranscriptLine], began_at: int) -> str:
    """WebVTT (https://www.w3.org/TR/webvtt1/) with a voice for each participant, timed from ``began_at``."""
    cues = ["WEBVTT\n"]
    for each in lines:
        start, end = (_since(moment, began_at) for moment in (each.started_at, each.ended_at))
        speaker = _escaped(_one_line(_speaker(each)))
        cues.append(f"{_stamp(start)} --> {_stamp(max(end, start + 1))}\n<v {speaker}>{_escaped(each.text)}</v>\n")
    return "\n".join(cues)


def _speaker(each: TranscriptLine) -> str:
    return each.name or each.participant


def _since(moment: str, began_at: int) -> int:
    return max(0, epoch_ms(datetime.fromisoformat(moment)) - began_at)


def _stamp(milliseconds: int) -> str:
    whole, millis = divmod(timedelta(milliseconds=milliseconds), timedelta(seconds=1))
    minutes, seconds = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}.{millis // timedelta(milliseconds=1):03}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
