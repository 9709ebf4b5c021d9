"""Agents that are killed at any moment: whatever they were at, what is left is safe, and it ends in agreement.

An operation is run many times. Each time one of the agents is killed after another number of effects, and comes back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fakes import World, outcome
from fleets import SMALL_POOL, configs, fleet
from judges import Judge
from warrend.conntrack import EXIT_KIND, OWN_KIND

CHOSEN = ("203.0.113.12", "2001:db8:e::12")
FLEET = configs(fleet(clients=2, **SMALL_POOL))

MOST = 40
"""No operation has so many effects."""

# What a client had before, and what it asks for.
OPERATIONS = {
    "start": ([], ("start", "nyc")),
    "switch": ([("start", "nyc")], ("start", "fra")),
    "again": ([("start", "nyc")], ("start", "nyc")),
    "stop": ([("start", "nyc")], ("stop",)),
    "disconnect": ([("start", "nyc")], ("disconnected",)),
    "choose": ([], ("choose", *CHOSEN)),
    "choose again": ([("choose", *CHOSEN)], ("choose", "203.0.113.13", None)),
    "default": ([("choose", *CHOSEN)], ("choose", None, None)),
    "disconnect chosen": ([("choose", *CHOSEN)], ("disconnected",)),
}


@contextmanager
def running(seed: int, operation: str) -> Iterator[tuple[World, Judge, asyncio.Task[Any]]]:
    """A fleet whose client c2 has a session by nyc, and c1 what it had and asks for something."""
    before, (what, *arguments) = OPERATIONS[operation]
    with World(FLEET, seed) as world:
        judge = Judge(world)
        world.boot()
        alice, bob = world.hosts["ams"].config.clients.values()
        for name, *more in [("start", "nyc")]:
            assert judge.ask("ams", name, bob, *more) == "ok"
        for name, *more in before:
            assert judge.ask("ams", name, alice, *more) == "ok"
        world.go()
        yield world, judge, judge.begin("ams", what, alice, *arguments)


def kept(world: World, judge: Judge, operation: str, result: str) -> None:
    """See that what the client was told is so."""
    host = world.hosts["ams"]
    (alice, bob) = host.config.clients.values()
    assert {way and way[:2] for way in map(host.way, (bob.address4, bob.address6))} == {(EXIT_KIND, "nyc")}
    if result == "killed":
        return  # it was told nothing: as before or as asked, and consistent, which the judge sees
    ways = [way and way[:2] for way in map(host.way, (alice.address4, alice.address6))]
    expected = {
        "start": [(EXIT_KIND, "nyc")] * 2,
        "again": [(EXIT_KIND, "nyc")] * 2,
        "switch": [(EXIT_KIND, "fra")] * 2,
        "choose": [(OWN_KIND, CHOSEN[0]), (OWN_KIND, CHOSEN[1])],
        "choose again": [(OWN_KIND, "203.0.113.13"), (OWN_KIND, "default")],
    }.get(operation, [(OWN_KIND, "default")] * 2)
    assert result in ("ok", "away")
    assert ways == expected
    assert judge.protected == {("ams", bob.address4)} | (
        {("ams", alice.address4)} if operation in ("start", "again", "switch") else set()
    )


VICTIMS = [
    (operation, victim)
    for operation, (_before, (what, *_arguments)) in OPERATIONS.items()
    for victim in ("ams", "nyc", "fra")
    if victim == "ams" or operation == "switch" or (victim == "nyc" and "cho" not in f"{what} {operation}")
]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("operation", "victim"), VICTIMS)
def test_killed_at_any_moment(operation: str, victim: str, seed: int) -> None:
    for moment in range(MOST):
        with running(seed, operation) as (world, judge, task):
            before = world.happened
            world.go(most=moment)
            over = world.happened - before < moment
            judge.kill(victim)
            world.go(60, task.done)
            world.boot(victim)
            judge.settle()
            kept(world, judge, operation, outcome(task))
        if over:
            return
    pytest.fail("this operation never ends")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_compared_at_any_moment(operation: str) -> None:
    """Somebody else changes something in nftables, and so all elements are compared with what they should be."""
    for moment in range(MOST):
        with running(0, operation) as (world, judge, task):
            before = world.happened
            world.go(most=moment)
            over = world.happened - before < moment
            world.hosts["ams"].touched()
            world.hosts["nyc"].touched()
            world.go(60, task.done)
            assert outcome(task) == "ok"
            judge.settle(1)
            kept(world, judge, operation, "ok")
        if over:
            return
    pytest.fail("this operation never ends")


@pytest.mark.parametrize("seed", [2])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_killed_again_while_it_comes_back(operation: str, seed: int) -> None:
    """The entry is killed at some moment, and again at some moment of its start."""
    for moment in range(MOST):
        with running(seed, operation) as (world, judge, task):
            before = world.happened
            world.go(most=moment)
            over = world.happened - before < moment
            judge.kill("ams")
            world.begin_boot("ams")
            world.go(60, most=world.random.randrange(8))
            judge.kill("ams")
            world.boot("ams")
            judge.settle(flows=False)
            kept(world, judge, operation, outcome(task))
        if over:
            return
    pytest.fail("this operation never ends")
