"""A fleet in which anything happens at any time: at every moment it is safe, and left alone it agrees."""

from __future__ import annotations

import asyncio
from typing import Any

from fakes import World
from fleets import SMALL_POOL, configs, fleet
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from judges import Judge
from warrend.entry import LIVENESS_SECONDS

FLEET = configs(fleet(clients=3, **SMALL_POOL))
HOME = {"c3": "nyc"}
SLUGS = ("ams", "nyc", "fra")
CHOICES = {"ams": ("203.0.113.12", "2001:db8:e::12"), "nyc": ("203.0.113.22", "2001:db8:e::22")}


class AnythingHappens(RuleBasedStateMachine):
    """Clients c1 and c2 are on ams, c3 is on nyc."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: dict[str, asyncio.Task[Any]] = {}
        self.world: World | None = None

    @initialize(seed=st.integers(0, 5))
    def begin(self, seed: int) -> None:
        self.world = World(FLEET, seed).__enter__()
        self.judge = Judge(self.world, **HOME)
        self.world.boot()

    @property
    def w(self) -> World:
        assert self.world is not None
        return self.world

    def runs(self, slug: str) -> bool:
        return self.w.hosts[slug].agent is not None and self.w.hosts[slug].process.alive

    @rule(name=st.sampled_from(("c1", "c2", "c3")), what=st.sampled_from(("stop", "disconnected")))
    def end(self, name: str, what: str) -> None:
        self.do(name, what)

    @rule(name=st.sampled_from(("c1", "c2", "c3")), slug=st.sampled_from(SLUGS))
    def start(self, name: str, slug: str) -> None:
        self.do(name, "start", slug)

    @rule(name=st.sampled_from(("c1", "c2", "c3")), four=st.booleans(), six=st.booleans())
    def choose(self, name: str, four: bool, six: bool) -> None:
        addresses = CHOICES[HOME.get(name, "ams")]
        self.do(name, "choose", addresses[0] if four else None, addresses[1] if six else None)

    def do(self, name: str, what: str, *arguments: Any) -> None:
        """One thing at a time for each client, as long as the server has an agent."""
        home = HOME.get(name, "ams")
        if self.runs(home) and (name not in self.tasks or self.tasks[name].done()):
            client = self.w.hosts[home].up.entry.client(name)
            self.tasks[name] = self.judge.begin(home, what, client, *arguments)

    @rule(effects=st.integers(1, 12))
    def go_on(self, effects: int) -> None:
        self.w.go(most=effects)

    @rule(seconds=st.sampled_from((0.1, 1, 3, 5, 10)))
    def wait(self, seconds: float) -> None:
        self.w.go(seconds)

    @rule(slug=st.sampled_from(SLUGS), reboot=st.booleans())
    def kill(self, slug: str, reboot: bool) -> None:
        self.judge.kill(slug, reboot)

    @rule(slug=st.sampled_from(SLUGS))
    def boot(self, slug: str) -> None:
        if not self.w.hosts[slug].process.alive:
            self.w.begin_boot(slug)

    @rule(slug=st.sampled_from(SLUGS))
    def cut(self, slug: str) -> None:
        self.w.cut.add(slug)

    @rule(slug=st.sampled_from(SLUGS))
    def load_anew(self, slug: str) -> None:
        """The table has no elements then."""
        self.w.hosts[slug].live.clear()
        if self.runs(slug):
            self.w.hosts[slug].touched()

    @rule(hours=st.sampled_from((-1, 0, 1)))
    def set_clock(self, hours: int) -> None:
        self.w.clock.off = 3600.0 * hours

    @precondition(lambda self: self.world is not None and self.world.cut)
    @rule()
    def mend(self) -> None:
        self.w.cut.clear()

    def teardown(self) -> None:
        if self.world is None:
            return
        try:
            self.world.cut.clear()
            for slug in SLUGS:
                if not self.world.hosts[slug].process.alive:
                    self.world.boot(slug)
            self.world.go(10, lambda: all(task.done() for task in self.tasks.values()))
            self.judge.settle(2 * LIVENESS_SECONDS, flows=False)
        finally:
            self.world.__exit__()


TestAnythingHappens = AnythingHappens.TestCase
TestAnythingHappens.settings = settings(
    max_examples=30, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
