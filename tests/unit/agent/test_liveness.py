"""Who is alive, as several sources say together."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from typing import Any

import pytest
from fleets import config
from warrend import liveness as liveness_module
from warrend.clients import Client
from warrend.liveness import Handshakes, Liveness

TOLD = replace(config(), access_interfaces=("wg0access", "wg1access"))
C1, C2, C3 = TOLD.clients.values()
NYC = TOLD.servers["nyc"]


class Source:
    """Somebody who knows some clients."""

    def __init__(self, answers: bool = True, **seen: float) -> None:
        self.answers, self.seen = answers, seen

    async def refresh(self) -> bool:
        return self.answers

    def last_seen(self, client: Client) -> float:
        return self.seen.get(client.name, -math.inf)


class Exit:
    """An exit, as far as liveness goes."""

    server = NYC
    handshake_seen: float | None = 5.0


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> dict[Any, float]:
    """What WireGuard says from now on; the monotonic clock stands at 1000."""
    said: dict[Any, float] = {}

    async def handshakes() -> dict[Any, float] | None:
        return None if "nobody" in said else said

    monkeypatch.setattr(liveness_module, "handshakes", handshakes)
    monkeypatch.setattr(liveness_module.time, "monotonic", lambda: 1000.0)
    return said


def asked(exit_: Any, *more: Any) -> tuple[bool, list[float]]:
    """Whether all sources answer, and when each client was last seen."""
    liveness = Liveness(Handshakes(TOLD), [exit_], more)
    answered = asyncio.run(liveness.refresh())
    return answered, [liveness.last_seen(client) for client in (C1, C2, C3)]


def test_a_client_comes_by_any_access_interface(wall: dict[Any, float]) -> None:
    wall["wg0access", C1.public_key] = 1.7e9
    wall["wg1access", C2.public_key] = 1.6e9
    wall["wg2access", C3.public_key] = 1.7e9
    assert asked(Exit()) == (True, [1000.0, 1000.0, -math.inf])


def test_a_client_is_alive_if_any_source_says_so(wall: dict[Any, float]) -> None:
    wall["wg0access", C1.public_key] = 1.7e9
    assert asked(Exit(), Source(c1=900, c2=950), Source(c2=1100)) == (True, [1000.0, 1100.0, -math.inf])


@pytest.mark.parametrize("silent", ["handshakes", "other"])
def test_while_a_source_is_silent_nobody_is_known_to_be_gone(wall: dict[Any, float], silent: str) -> None:
    if silent == "handshakes":
        wall["nobody"] = 1.0
    assert asked(Exit(), Source(answers=silent != "other", c2=950)) == (False, [-math.inf, 950, -math.inf])


def test_of_a_link_only_handshakes_know(wall: dict[Any, float]) -> None:
    exit_ = Exit()
    wall[NYC.interface, NYC.public_key] = 1.7e9
    asked(exit_, Source(answers=False))
    assert exit_.handshake_seen == 1000.0
    wall[NYC.interface, NYC.public_key] = 0.0
    asked(exit_)
    assert exit_.handshake_seen == -math.inf
    wall["nobody"] = 1.0
    asked(exit_)
    assert exit_.handshake_seen is None
