"""The functions in the database that do what every append, delivery and read needs, in one round trip each.

Each is one statement to the caller: it commits by itself, or joins the caller's transaction (READ COMMITTED). Every
statement within sees what was committed when that statement began. So the rows are locked first, in the order of their
keys, which prevents most deadlocks, and are changed by a later statement, which sees what others had committed before
they released the rows.

Names are looked up among all that the session's search_path has. So functions whose arguments are not exactly of the
declared types are written with their schema: another role's overload could fit better.

They are code, not data: every upgrade of the tables replaces them. A function that older versions cannot call the
same way gets another name, because their processes go on.
"""
# ruff: noqa: S608 - the statements are put together from the names in this file

LOG = 0x73706565636872
"""The advisory lock of the log."""
OPENING = LOG + 1
"""That of the transaction that opens a stream."""

_EARLIER_MS = 100
"""A lane that an append wakes is due since then. The processes' clocks differ by up to half a round trip: one that is
behind would find the lane not due yet when the ring comes, and would look again only after a second."""

# Plans are made once per session, when the tables may be empty: they must use the indexes as if they were large.
_PLANNED_ONCE = """
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
"""

# A release waits for this one's locks, or this one for those of the release (see statements.release): the last
# statement sees the lanes that became idle meanwhile.
_APPEND = f"""
CREATE OR REPLACE FUNCTION append_events(ends json, grown json, now bigint) RETURNS boolean
LANGUAGE plpgsql {_PLANNED_ONCE} AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared({LOG});
    IF json_array_length(ends) <> (SELECT count(*) FROM (
        SELECT FROM json_to_recordset(ends) v (sid bigint, fence bigint, before bigint) JOIN streams s ON s.sid = v.sid
        WHERE s.writer_fence = v.fence AND s.last_sequence = v.before AND s.closed_at IS NULL
        ORDER BY s.sid FOR NO KEY UPDATE OF s) held)
    THEN
        RETURN false;
    END IF;
    INSERT INTO events
        (sid, sequence, id, type, delivery, utterance, revision, emitted_at, expires_at, closes, body)
    SELECT sid, sequence, id, type, delivery, utterance, revision, emitted_at, expires_at, closes,
        pg_catalog.convert_to(body, 'UTF8')
    FROM json_to_recordset(grown) v (sid bigint, sequence bigint, id text, type text, delivery text, utterance text,
        revision bigint, emitted_at bigint, expires_at bigint, closes boolean, body text);
    UPDATE streams SET last_sequence = v.last, closed_at = CASE WHEN v.closes THEN now END
    FROM json_to_recordset(ends) v (sid bigint, last bigint, closes boolean) WHERE streams.sid = v.sid;
    UPDATE lanes SET next_at = now - {_EARLIER_MS}
    FROM json_to_recordset(ends) v (sid bigint) WHERE lanes.sid = v.sid AND lanes.next_at IS NULL;
    RETURN true;
END $$"""

# The same for one event, as most appends are: JSON would take as long as the rest. The stream's end is compared once
# the row is locked, in its newest version.
_APPEND_ONE = f"""
CREATE OR REPLACE FUNCTION append_event(stream bigint, held bigint, before bigint, now bigint, id text, type text,
    delivery text, utterance text, revision bigint, emitted_at bigint, expires_at bigint, closes boolean, body bytea)
RETURNS boolean
LANGUAGE plpgsql {_PLANNED_ONCE} AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared({LOG});
    UPDATE streams s SET last_sequence = before + 1, closed_at = CASE WHEN closes THEN now END
    WHERE s.sid = stream AND s.writer_fence = held AND s.last_sequence = before AND s.closed_at IS NULL;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO events
        (sid, sequence, id, type, delivery, utterance, revision, emitted_at, expires_at, closes, body)
    VALUES (stream, before + 1, id, type, delivery, utterance, revision, emitted_at, expires_at, closes, body);
    UPDATE lanes l SET next_at = now - {_EARLIER_MS} WHERE l.sid = stream AND l.next_at IS NULL;
    RETURN true;
END $$"""

# A cursor never goes back. The network may hold a statement back until its sender has given it up, settled the same on
# another connection and gone on: executed then, it would have later events sent again, behind newer ones.
_SETTLE = f"""
CREATE OR REPLACE FUNCTION settle_lanes(settled json, tries json, now bigint) RETURNS boolean
LANGUAGE plpgsql {_PLANNED_ONCE} AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared({LOG});
    IF json_array_length(settled) <> (SELECT count(*) FROM (
        SELECT FROM json_to_recordset(settled) v (lane bigint, fence bigint) JOIN lanes l ON l.lane = v.lane
        WHERE l.fence = v.fence AND l.owner IS NOT NULL ORDER BY l.lane FOR NO KEY UPDATE OF l) held)
    THEN
        RETURN false;
    END IF;
    INSERT INTO attempts (lane, sequence, number, at, stage, status, elapsed_ms)
    SELECT * FROM json_to_recordset(tries) v (lane bigint, sequence bigint, number bigint, at bigint, stage text,
        status smallint, elapsed_ms float8);
    UPDATE lanes SET cursor = v.cursor, last_sent = v.last_sent, attempts = v.attempts, settled_at = now
    FROM json_to_recordset(settled) v (lane bigint, cursor bigint, last_sent bigint, attempts bigint)
    WHERE lanes.lane = v.lane AND lanes.cursor <= v.cursor;
    RETURN true;
END $$"""

# Lanes that another transaction has locked are left out; what is locked here is looked at in its newest version.
# The time makes a fence differ from that of a claim on another server: after a failover, or a promotion too early, one
# process may hold a lane as the former primary gave it, and another as the new one did.
_CLAIM = f"""
CREATE OR REPLACE FUNCTION claim_lanes(wants json, claimer text, now bigint, overdue bigint, until bigint)
RETURNS TABLE (lane bigint, endpoint text, sid bigint, "cursor" bigint, last_sent bigint, attempts bigint,
    fence bigint, failing_since bigint, room text, participant text)
LANGUAGE plpgsql {_PLANNED_ONCE} AS $$
DECLARE
    want record;
BEGIN
    PERFORM pg_advisory_xact_lock_shared({LOG});
    FOR want IN
        SELECT v.endpoint, v.most, v.parts, v.remainder, v.own
        FROM json_to_recordset(wants) v (endpoint text, most bigint, parts bigint, remainder bigint, own boolean)
    LOOP
        RETURN QUERY
        WITH chosen AS MATERIALIZED (
            SELECT l.lane, l.sid, l.next_at FROM lanes l
            WHERE l.endpoint = want.endpoint AND l.next_at <= now
                AND (mod(l.sid, want.parts) = want.remainder OR (NOT want.own AND l.next_at <= overdue))
                AND EXISTS (SELECT FROM endpoints e
                    WHERE e.name = want.endpoint AND e.active AND e.disabled_at IS NULL)
            ORDER BY l.next_at LIMIT want.most FOR NO KEY UPDATE OF l SKIP LOCKED
        ), taken AS (
            UPDATE lanes l SET owner = claimer, fence = greatest(l.fence + 1, now), next_at = until
            FROM chosen c JOIN streams s ON s.sid = c.sid WHERE l.lane = c.lane
            RETURNING l.*, s.room, s.participant, c.next_at AS due_at
        )
        SELECT t.lane, t.endpoint, t.sid, t.cursor, t.last_sent, t.attempts, t.fence, t.failing_since, t.room,
            t.participant
        FROM taken t ORDER BY t.due_at;
    END LOOP;
END $$"""

_READ = f"""
CREATE OR REPLACE FUNCTION read_events(wants json) RETURNS TABLE (n integer, sequence bigint, id text, type text,
    delivery text, utterance text, revision bigint, emitted_at bigint, expires_at bigint, body bytea, closes boolean)
LANGUAGE plpgsql STABLE {_PLANNED_ONCE} AS $$
BEGIN
    RETURN QUERY
    SELECT v.n, e.sequence, e.id, e.type, e.delivery, e.utterance, e.revision, e.emitted_at, e.expires_at, e.body,
        e.closes
    FROM json_to_recordset(wants) v (n integer, sid bigint, after bigint, upto bigint)
    JOIN events e ON e.sid = v.sid AND e.sequence > v.after AND e.sequence <= v.upto
    ORDER BY v.n, e.sequence;
END $$"""

FUNCTIONS = {
    "append_events": _APPEND,
    "append_event": _APPEND_ONE,
    "settle_lanes": _SETTLE,
    "claim_lanes": _CLAIM,
    "read_events": _READ,
}
