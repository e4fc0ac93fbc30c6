"""Attributes that are too large for every event about their participant."""

import json

from relay.events.envelope import ParticipantRef
from relay.events.omission import MOST_ATTRIBUTES, MOST_NAME, cut, shortened


def test_attributes_of_ordinary_size_are_all_there_and_nothing_is_said() -> None:
    kept, omitted = shortened({"tenant": "acme", "role": "caller"})
    assert (kept, omitted) == ({"tenant": "acme", "role": "caller"}, 0)
    participant = ParticipantRef(
        sid="PA_1", identity="alice", name="", kind="standard", attributes=kept, attributes_omitted=omitted
    )
    assert "attributes_omitted" not in json.loads(participant.model_dump_json())


def test_the_largest_attributes_are_left_out_and_the_event_says_how_many() -> None:
    kept, omitted = shortened({"bio": "x" * 30_000, "tenant": "acme", "notes": "ä" * 3_000, "role": "caller"})
    assert (kept, omitted) == ({"tenant": "acme", "role": "caller"}, 2)
    participant = ParticipantRef(
        sid="PA_1", identity="alice", name="", kind="standard", attributes=kept, attributes_omitted=omitted
    )
    assert json.loads(participant.model_dump_json())["attributes_omitted"] == 2
    assert ParticipantRef.model_validate_json(participant.model_dump_json()) == participant


def test_many_small_attributes_are_left_out_until_the_rest_fits() -> None:
    kept, omitted = shortened({f"key{n:04}": "v" * 20 for n in range(1000)})
    assert len(json.dumps(kept, separators=(",", ":"))) <= MOST_ATTRIBUTES
    assert omitted == 1000 - len(kept)


def test_a_name_is_cut_where_it_is_longer_than_livekits_limit() -> None:
    assert cut("ä" * MOST_NAME) == "ä" * MOST_NAME
    assert cut("Alice " * 100_000) == ("Alice " * 100)[: MOST_NAME - 1] + "…"
