# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A session, how far it is, and what makes it go on: the last in one table."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from .exits import Pair
from .store import SessionRow


class State(Enum):
    """How far a session is.

    HELD: about to reach its exit, or to end; the client's packets are dropped. ACTIVE: they go to the exit. BLOCKED:
    the exit is away; the client is told that nothing can be reached. OVER: it is no more.
    """

    HELD = "held"
    ACTIVE = "active"
    BLOCKED = "blocked"
    OVER = "over"


class Event(Enum):
    """What happens to a session."""

    REACHED = "its exit has agreed, and the link to it is up"
    AWAY = "its exit does not answer, refuses, or the link to it is down"
    FAILED = "the kernel or the disk has refused what was under way"
    ENDING = "somebody ends it"
    ENDED = "it is off the disk, and its flows are forgotten"
    UNDONE = "it could not be written down, and never was"
    REPLACED = "the client has a session by another exit instead"
    REMOVED = "its client may not connect any more"


NEXT = {
    (State.HELD, Event.REACHED): State.ACTIVE,
    (State.HELD, Event.AWAY): State.BLOCKED,
    (State.HELD, Event.FAILED): State.BLOCKED,
    (State.HELD, Event.ENDING): State.HELD,
    (State.HELD, Event.ENDED): State.OVER,
    (State.HELD, Event.UNDONE): State.OVER,
    (State.HELD, Event.REPLACED): State.OVER,
    (State.HELD, Event.REMOVED): State.OVER,
    (State.ACTIVE, Event.AWAY): State.BLOCKED,
    (State.ACTIVE, Event.FAILED): State.BLOCKED,
    (State.ACTIVE, Event.ENDING): State.HELD,
    (State.ACTIVE, Event.REPLACED): State.OVER,
    (State.ACTIVE, Event.REMOVED): State.OVER,
    (State.BLOCKED, Event.REACHED): State.ACTIVE,
    (State.BLOCKED, Event.AWAY): State.BLOCKED,
    (State.BLOCKED, Event.FAILED): State.BLOCKED,
    (State.BLOCKED, Event.ENDING): State.HELD,
    (State.BLOCKED, Event.REPLACED): State.OVER,
    (State.BLOCKED, Event.REMOVED): State.OVER,
}
"""The next state. What is not here cannot happen. One that cannot go on is BLOCKED until its exit is asked again."""


class IllegalTransitionError(Exception):
    """Something happened to a session that cannot, in its state."""


def next_state(state: State, event: Event) -> State:
    """The state after an event.

    Raises:
        IllegalTransitionError: see there.
    """
    if (state, event) not in NEXT:
        raise IllegalTransitionError(f"a session that is {state.value} cannot go on when {event.value}")
    return NEXT[state, event]


@dataclass
class Session:
    """One client's redirection.

    Attributes:
        row: what is on disk.
        state: see there; only :meth:`advance` changes it.
        began: when it began, or the agent did, by the monotonic clock.
        addresses: the exit addresses that the internet sees, by session address, as far as they are known.
    """

    row: SessionRow
    state: State
    began: float
    addresses: dict[str, str] = field(default_factory=dict)

    @property
    def pair(self) -> Pair:
        """The session addresses."""
        return self.row.session4, self.row.session6

    def advance(self, event: Event) -> None:
        """Go on to the state that follows from what has happened.

        Raises:
            IllegalTransitionError: that cannot happen in this state.
        """
        self.state = next_state(self.state, event)
