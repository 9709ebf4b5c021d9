"""The transition table of a session's states."""

from __future__ import annotations

import itertools
import re

import pytest
from fakes import EPOCH
from warrend.session_states import NEXT, Event, IllegalTransitionError, Session, State, next_state
from warrend.store import SessionRow

HELD, ACTIVE, BLOCKED, OVER = State.HELD, State.ACTIVE, State.BLOCKED, State.OVER

# A line for each event: what it makes of a session that is held, active, blocked and over; None if it cannot happen.
EXPECTED = {
    Event.REACHED: (ACTIVE, None, ACTIVE, None),
    Event.AWAY: (BLOCKED, BLOCKED, BLOCKED, None),
    Event.FAILED: (BLOCKED, BLOCKED, BLOCKED, None),
    Event.ENDING: (HELD, HELD, HELD, None),
    Event.ENDED: (OVER, None, None, None),
    Event.UNDONE: (OVER, None, None, None),
    Event.REPLACED: (OVER, OVER, OVER, None),
    Event.REMOVED: (OVER, OVER, OVER, None),
}


def session(state: State) -> Session:
    row = SessionRow("10.100.0.1", "fd57::c1", "nyc", "10.128.128.7", "fd57:8001::7", EPOCH)
    return Session(row, state, 0.0)


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_every_pair(state: State, event: Event) -> None:
    wanted, one = EXPECTED[event][(HELD, ACTIVE, BLOCKED, OVER).index(state)], session(state)
    if wanted is None:
        message = f"a session that is {state.value} cannot go on when {event.value}"
        with pytest.raises(IllegalTransitionError, match=f"^{re.escape(message)}$"):
            one.advance(event)
        assert one.state is state, "and it is as it was"
    else:
        one.advance(event)
        assert one.state is wanted


def test_only_a_held_session_ends_or_never_was() -> None:
    """Its client's packets are dropped then: none leaves by the entry while it is still on disk."""
    assert {state for state, event in NEXT if event in (Event.ENDED, Event.UNDONE)} == {HELD}


def test_whatever_is_not_over_can_be_ended() -> None:
    for state in (HELD, ACTIVE, BLOCKED):
        assert next_state(next_state(state, Event.ENDING), Event.ENDED) is OVER
    assert not [state for state, _event in NEXT if state is OVER]
