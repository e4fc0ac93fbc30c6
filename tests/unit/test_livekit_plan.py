"""Coverage as a decision: every room with people is heard, by one agent, and nothing is sent twice."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from relay.capture.livekit.plan import (
    DISPATCH_MS,
    EMPTY_MS,
    HASTY_MS,
    VERIFY_MS,
    VERIFY_OWN_MS,
    YOUNG_MS,
    Agent,
    Jobs,
    Listed,
    Remove,
    RoomDispatch,
    Seen,
    State,
    due,
    may_need_an_agent,
    plan,
)

ROOM = Listed("room", "RM_1", 1)
NOBODY = Jobs(worker="w1")
EMPTY = Seen(people=0, agents=())
ALONE = Seen(people=1, agents=())
HEARD = Seen(people=1, agents=(Agent("a1", "w1"),))
AT_WORK = Jobs(worker="w1", rooms=frozenset({"room"}), agents=frozenset({"a1"}))


def after(*looks: tuple[int, Seen, Jobs]) -> State:
    state = State()
    for now, seen, jobs in looks:
        state, _ = plan(state, [ROOM], {ROOM.sid: seen}, jobs, now)
    return state


def test_a_room_with_people_and_without_us_gets_an_agent_once_per_grace() -> None:
    state, actions = plan(State(), [ROOM], {ROOM.sid: ALONE}, NOBODY, 0)
    assert actions == [RoomDispatch("room", ROOM.sid)]
    assert state.uncovered == ("room",)
    state, actions = plan(state, [ROOM], {ROOM.sid: ALONE}, NOBODY, DISPATCH_MS - 1)
    assert actions == []
    state, actions = plan(state, [ROOM], {ROOM.sid: ALONE}, NOBODY, DISPATCH_MS)
    assert actions == [RoomDispatch("room", ROOM.sid)]
    state, actions = plan(state, [ROOM], {ROOM.sid: HEARD}, AT_WORK, DISPATCH_MS + 1)
    assert actions == []
    assert (state.heard, state.uncovered) == (1, ())


def test_while_another_worker_hangs_an_agent_is_waited_for_less_long() -> None:
    haste = Jobs(worker="w1", others_hang=True)
    state, _ = plan(State(), [ROOM], {ROOM.sid: ALONE}, haste, 0)
    state, actions = plan(state, [ROOM], {ROOM.sid: ALONE}, haste, HASTY_MS - 1)
    assert actions == []
    _, actions = plan(state, [ROOM], {ROOM.sid: ALONE}, haste, HASTY_MS)
    assert actions == [RoomDispatch("room", ROOM.sid)]
    assert may_need_an_agent(state, "room", haste, HASTY_MS)


def test_nothing_is_sent_before_the_worker_is_registered_and_all_at_once_then() -> None:
    state, actions = plan(State(), [ROOM], {ROOM.sid: ALONE}, Jobs(worker="w1", taking=False), 0)
    assert actions == []
    assert state.uncovered == ("room",)
    _, actions = plan(state, [ROOM], {ROOM.sid: ALONE}, NOBODY, 1)
    assert actions == [RoomDispatch("room", ROOM.sid)]


def test_an_empty_room_gets_none() -> None:
    state, actions = plan(State(), [ROOM], {ROOM.sid: EMPTY}, NOBODY, 0)
    assert actions == []
    assert state.uncovered == ()


def test_a_job_on_its_way_is_waited_for() -> None:
    _, actions = plan(State(), [ROOM], {ROOM.sid: ALONE}, AT_WORK, 0)
    assert actions == []


def test_an_agent_lost_right_after_it_came_is_replaced_at_once() -> None:
    state = after((0, ALONE, NOBODY), (900, HEARD, AT_WORK))
    _, actions = plan(state, [ROOM], {ROOM.sid: HEARD}, NOBODY, 1_000)
    assert actions == [Remove("room", "a1"), RoomDispatch("room", ROOM.sid)]


def test_of_two_agents_the_first_stays() -> None:
    two = Seen(people=1, agents=(Agent("b1", "w2"), Agent("a1", "w1")))
    state, actions = plan(State(), [ROOM], {ROOM.sid: two}, AT_WORK, 0)
    assert actions == [Remove("room", "a1")]
    assert state.heard == 1


def test_one_too_many_is_removed_once_it_has_connected_and_looked_for_until_then() -> None:
    two = Seen(people=1, agents=(Agent("a1", "w1"), Agent("b1", "w2", connected=False)))
    state, actions = plan(State(), [ROOM], {ROOM.sid: two}, AT_WORK, 0)
    assert actions == []
    assert due(state, [ROOM], AT_WORK, 1) == [ROOM]


def test_another_workers_agent_is_not_ours_to_judge() -> None:
    others = Seen(people=1, agents=(Agent("b1", "w2"),))
    _, actions = plan(State(), [ROOM], {ROOM.sid: others}, NOBODY, 0)
    assert actions == []


def test_a_room_that_is_gone_is_forgotten() -> None:
    state, actions = plan(after((0, ALONE, NOBODY)), [], {}, NOBODY, 1)
    assert state == State()
    assert actions == []


def test_which_rooms_are_looked_into() -> None:
    old = YOUNG_MS + 1
    uncounted = Listed("room", "RM_1", 0)
    assert due(State(), [uncounted], NOBODY, 0) == [uncounted], "never seen"
    first = YOUNG_MS
    assert due(after((first, EMPTY, NOBODY)), [uncounted], NOBODY, first + 1) == [uncounted], (
        "the count lags in a young room"
    )
    assert due(after((0, EMPTY, NOBODY), (old, EMPTY, NOBODY)), [uncounted], NOBODY, old + 1) == []
    assert due(after((0, EMPTY, NOBODY), (old, EMPTY, NOBODY)), [uncounted], NOBODY, old + EMPTY_MS) == [uncounted]
    assert due(after((0, EMPTY, NOBODY), (old, EMPTY, NOBODY)), [ROOM], NOBODY, old + 1) == [ROOM], "somebody came"
    assert due(after((0, ALONE, NOBODY)), [ROOM], NOBODY, 1) == [ROOM], "not heard yet"
    assert due(after((0, HEARD, AT_WORK)), [ROOM], AT_WORK, VERIFY_OWN_MS - 1) == []
    assert due(after((0, HEARD, AT_WORK)), [ROOM], AT_WORK, VERIFY_OWN_MS) == [ROOM]
    others = Seen(people=1, agents=(Agent("b1", "w2"),))
    assert due(after((0, others, NOBODY)), [ROOM], NOBODY, VERIFY_MS - 1) == []
    assert due(after((0, others, NOBODY)), [ROOM], NOBODY, VERIFY_MS) == [ROOM]
    assert due(after((0, HEARD, AT_WORK)), [ROOM], NOBODY, 1) == [ROOM], "its job is gone"


@dataclass
class World:
    """A server with rooms, one worker, and agents that come some time after they are sent for, if they come."""

    people: dict[str, int] = field(default_factory=dict)
    coming: list[tuple[int, str]] = field(default_factory=list)
    agents: dict[str, list[Agent]] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)
    born: int = 0

    def jobs(self) -> Jobs:
        living = {room: [a for a in agents if a.identity not in self.dead] for room, agents in self.agents.items()}
        return Jobs(
            worker="w1",
            rooms=frozenset(room for room, agents in living.items() if agents),
            agents=frozenset(agent.identity for agents in living.values() for agent in agents),
        )

    def arrive(self, now: int) -> None:
        for when, room in [each for each in self.coming if each[0] <= now]:
            self.coming.remove((when, room))
            self.born += 1
            self.agents.setdefault(room, []).append(Agent(f"a{self.born}", "w1"))

    def look(self, state: State, now: int, delays: list[int | None]) -> State:
        listed = [Listed(room, f"RM_{room}", count) for room, count in self.people.items()]
        seen = {
            room.sid: Seen(self.people[room.name], tuple(self.agents.get(room.name, ())))
            for room in due(state, listed, self.jobs(), now)
        }
        state, actions = plan(state, listed, seen, self.jobs(), now)
        for action in actions:
            if isinstance(action, Remove):
                agents = self.agents[action.room]
                assert len(agents) > 1 or agents[0].identity in self.dead, "the only living agent was removed"
                self.agents[action.room] = [agent for agent in agents if agent.identity != action.identity]
            else:
                assert action.room not in self.jobs().rooms, "sent to a room that is heard"
                assert action.room not in {room for _, room in self.coming}, "sent twice"
                delay = delays.pop() if delays else 0
                if delay is not None:
                    self.coming.append((now + delay, action.room))
        return state


_STEP = st.one_of(
    st.tuples(st.just("come"), st.sampled_from("abc")),
    st.tuples(st.just("go"), st.sampled_from("abc")),
    st.tuples(st.just("kill"), st.sampled_from("abc")),
    st.tuples(st.just("double"), st.sampled_from("abc")),
    st.tuples(st.just("wait"), st.just("")),
)


@settings(max_examples=200, deadline=None)
@given(
    steps=st.lists(_STEP, max_size=30),
    delays=st.lists(st.one_of(st.none(), st.integers(0, DISPATCH_MS - 1_000)), max_size=20),
)
def test_whatever_happens_every_room_ends_up_heard_once(steps: list[tuple[str, str]], delays: list[int | None]) -> None:
    world, state, now = World(), State(), 0
    for number, (what, room) in enumerate([*steps, *[("wait", "")] * 30]):
        now += 1_000
        if number == len(steps):
            delays.clear()  # from here on, every job that is asked for comes
        if what == "come":
            world.people[room] = world.people.get(room, 0) + 1
        elif what == "go" and world.people.get(room):
            world.people[room] -= 1
        elif what == "kill":
            world.dead |= {agent.identity for agent in world.agents.get(room, ())}
        elif what == "double" and world.agents.get(room):
            world.born += 1
            world.agents[room].append(Agent(f"a{world.born}", "w1"))
        world.arrive(now)
        state = world.look(state, now, delays)
    for room, count in world.people.items():
        living = [agent for agent in world.agents.get(room, ()) if agent.identity not in world.dead]
        assert len(living) == 1 or count == 0
        assert len(living) <= 1
    assert state.uncovered == ()


def test_a_room_that_is_told_of_is_looked_at_although_it_was_empty() -> None:
    state = after((0, EMPTY, NOBODY), (YOUNG_MS, EMPTY, NOBODY))
    empty = Listed("room", ROOM.sid, 0)
    assert due(state, [empty], NOBODY, YOUNG_MS + 1) == []
    assert due(state, [empty], NOBODY, YOUNG_MS + 1, told=frozenset({"another"})) == []
    assert due(state, [empty], NOBODY, YOUNG_MS + 1, told=frozenset({"room"})) == [empty]


def test_a_heard_room_is_not_looked_at_more_often_because_it_is_told_of() -> None:
    state = after((0, HEARD, AT_WORK))
    assert due(state, [ROOM], AT_WORK, 1, told=frozenset({"room"})) == []


def test_a_look_at_one_room_forgets_no_other() -> None:
    state = after((0, HEARD, AT_WORK))
    other = Listed("other", "RM_2", 1)
    state, actions = plan(state, [other], {other.sid: ALONE}, AT_WORK, 1, all_rooms=False)
    assert actions == [RoomDispatch("other", other.sid)]
    assert (state.heard, state.uncovered) == (1, ("other",))
    state, _ = plan(state, [other], {}, AT_WORK, 2)
    assert state.heard == 0


def test_a_room_that_is_told_of_again_is_not_looked_at_while_its_agent_is_on_the_way() -> None:
    sent = after((0, ALONE, NOBODY))
    assert may_need_an_agent(State(), "room", NOBODY, 0)
    assert not may_need_an_agent(sent, "room", NOBODY, DISPATCH_MS - 1)
    assert may_need_an_agent(sent, "room", NOBODY, DISPATCH_MS)
    assert may_need_an_agent(sent, "another", NOBODY, 0)
    assert not may_need_an_agent(State(), "room", AT_WORK, 0)
    assert may_need_an_agent(after((0, EMPTY, NOBODY)), "room", NOBODY, 0)
