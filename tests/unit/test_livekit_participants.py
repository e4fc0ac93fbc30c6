"""Which participants the relay listens to."""

import pytest
from livekit import api, rtc

from relay.capture.livekit.participants import accepts, kind_name, source_name
from relay.capture.livekit.plan import WORKER_ATTRIBUTE, Agent
from relay.capture.worker.coverage import matches, presence
from relay.config.capture import Participants

Kind = rtc.ParticipantKind


@pytest.mark.parametrize(
    ("kind", "heard"),
    [
        (Kind.PARTICIPANT_KIND_STANDARD, True),
        (Kind.PARTICIPANT_KIND_SIP, True),
        (Kind.PARTICIPANT_KIND_CONNECTOR, True),
        (Kind.PARTICIPANT_KIND_AGENT, False),
        (Kind.PARTICIPANT_KIND_EGRESS, False),
        (Kind.PARTICIPANT_KIND_INGRESS, False),
        (99, False),
    ],
)
def test_people_are_heard_and_machines_are_not(kind: int, heard: bool) -> None:
    assert accepts(Participants().kinds, kind) is heard


def test_what_the_configuration_names_is_heard() -> None:
    assert accepts(("agent",), Kind.PARTICIPANT_KIND_AGENT)
    assert not accepts(("agent",), Kind.PARTICIPANT_KIND_STANDARD)


def test_every_kind_that_the_sdk_knows_has_a_name_of_ours() -> None:
    assert [kind_name(number) for number in Kind.values()] == [
        "standard", "ingress", "egress", "sip", "agent", "connector", "bridge",
    ]  # fmt: skip
    assert kind_name(99) == "unknown"


def test_sources() -> None:
    assert source_name(rtc.TrackSource.SOURCE_MICROPHONE) == "microphone"
    assert source_name(rtc.TrackSource.SOURCE_SCREENSHARE_AUDIO) == "screen_share_audio"
    assert source_name(rtc.TrackSource.SOURCE_UNKNOWN) == "unknown"


def test_rooms_match_by_glob_and_case() -> None:
    assert matches(("support-*", "x"), "support-42")
    assert not matches(("support-*", "x"), "Support-42")
    assert not matches((), "support-42")


def test_presence_tells_our_agents_from_other_peoples() -> None:
    def somebody(identity: str, kind: int, joined_ms: int, **attributes: str) -> api.ParticipantInfo:
        return api.ParticipantInfo(
            identity=identity,
            kind=kind,  # type: ignore[arg-type]  # the enum is a plain int at run time
            joined_at_ms=joined_ms,
            attributes=attributes,
            state=api.ParticipantInfo.State.JOINED if identity == "second" else api.ParticipantInfo.State.ACTIVE,
        )

    ours = {"lk.agent.name": "speech-relay", WORKER_ATTRIBUTE: "w1"}
    agent, egress = api.ParticipantInfo.Kind.AGENT, api.ParticipantInfo.Kind.EGRESS
    seen = presence(
        [
            somebody("alice", 0, 1),
            somebody("second", agent, 3, **ours),
            somebody("first", agent, 2, **ours),
            somebody("voice", agent, 1, **{"lk.agent.name": "voice-agent"}),
            somebody("unnamed", agent, 1),
            somebody("recorder", egress, 1),
            somebody("liar", 0, 1, **ours),
        ],
        "speech-relay",
    )
    assert seen.people == 2
    assert seen.agents == (Agent("first", "w1"), Agent("second", "w1", connected=False))
