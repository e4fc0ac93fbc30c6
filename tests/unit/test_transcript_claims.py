"""Whose words a session heard, where anybody may send a transcript under their own name."""

from relay.capture.observe.transcript_claims import GRACE_S, MOST_TEXTS, WITHIN_S, Claims, Verdict


def test_the_first_claim_of_a_text_wins_and_an_echo_does_not() -> None:
    claims = Claims()
    assert claims.said("so", 0.0, known=None) is None
    assert claims.claimed("alice", "so", 0.01) == Verdict("so", "alice")
    assert claims.claimed("mallory", "so", 0.02) is None


def test_the_echo_of_an_interim_does_not_claim_the_final_of_the_same_words() -> None:
    claims = Claims()
    claims.said("so", 0.0, known=None)
    claims.claimed("alice", "so", 0.01)
    assert claims.said("so", 1.5, known="alice") is None
    assert claims.claimed("mallory", "so", 1.51) is None
    assert claims.claimed("alice", "so", 1.52) is None
    assert claims.said("so", 3.4, known="alice") is None
    assert claims.claimed("mallory", "so", 3.41) is None


def test_a_claim_ahead_of_its_text_counts_once_nobody_has_contradicted_it() -> None:
    claims = Claims()
    claims.claimed("alice", "so", 0.0)
    assert claims.said("so", 0.01, known=None) is None
    assert claims.pending
    assert claims.overdue(0.02) == []
    assert claims.overdue(0.01 + GRACE_S) == [Verdict("so", "alice")]
    assert not claims.pending
    assert claims.claimed("mallory", "so", 0.4) is None


def test_a_guess_ahead_of_its_text_is_nobodys_once_the_agent_contradicts_it() -> None:
    claims = Claims()
    claims.claimed("mallory", "so", 0.0)
    claims.said("so", 0.01, known="alice")
    assert claims.claimed("alice", "so", 0.02) == Verdict("so", None)
    assert not claims.pending
    assert claims.claimed("mallory", "so", 0.03) is None
    assert claims.overdue(1.0) == []


def test_whom_the_session_heard_before_is_contradicted_by_the_agent_too() -> None:
    claims = Claims()
    claims.claimed("mallory", "so", 0.0)
    claims.said("so", 0.01, known="mallory")
    assert not claims.pending
    assert claims.claimed("alice", "so", 0.02) == Verdict("so", None)


def test_two_claims_ahead_of_a_text_attribute_it_to_nobody() -> None:
    claims = Claims()
    claims.claimed("mallory", "so", 0.0)
    claims.claimed("alice", "so", 0.01)
    assert claims.said("so", 0.02, known="alice") == Verdict("so", None)


def test_an_old_claim_and_one_of_other_words_attribute_nothing() -> None:
    claims = Claims()
    claims.claimed("mallory", "so", 0.0)
    claims.claimed("mallory", "it goes", WITHIN_S)
    claims.claimed("mallory", " ", WITHIN_S)
    assert claims.said("so", WITHIN_S + 0.1, known=None) is None
    assert claims.said(" ", WITHIN_S + 0.1, known=None) is None
    assert not claims.pending


def test_guesses_without_number_cost_no_memory_and_nobody_elses_claim() -> None:
    claims = Claims()
    claims.claimed("alice", "so", 0.0)
    for number in range(10 * MOST_TEXTS):
        claims.claimed("mallory", str(number), 0.01)
    claims.said("so", 0.02, known=None)
    assert claims.overdue(1.0) == [Verdict("so", "alice")]


def test_a_claim_of_what_another_session_said_attributes_nothing() -> None:
    claims = Claims()
    claims.said("so", 0.0, known=None)
    claims.claimed("alice", "it goes", 0.01)
    claims.clear()
    assert claims.claimed("alice", "so", 0.02) is None
    assert claims.said("it goes", 0.03, known=None) is None
    assert not claims.pending
