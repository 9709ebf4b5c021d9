# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# PRIVATE to the collection, and installed on every server as part of the engine that restores its network at boot:
# standard library and relative imports only.
"""What a run is going to do, found out before the first of it is done.

Check mode shows the list, and a run carries it out; both have the same list, so that one cannot say what the other
does not do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Change:
    """One difference between what is wanted and what is there, for people, without a secret.

    Attributes:
        action: what is done about it, in one short line.
        name: what differs: a path, ``nftables table NAME``, ``link NAME``; empty where there is nothing to show.
        before, after: lines of text.
    """

    action: str
    name: str = ""
    before: Sequence[str] = ()
    after: Sequence[str] = ()


@dataclass
class Plan:
    """The changes, and the steps that make them, both in the order of a run."""

    changes: list[Change] = field(default_factory=list)
    _steps: list[Callable[[], object]] = field(default_factory=list)

    def add(
        self,
        action: str,
        name: str = "",
        before: Sequence[str] = (),
        after: Sequence[str] = (),
        step: Callable[[], object] | None = None,
    ) -> None:
        """Note a difference and, unless a step of several differences follows, what is to be done."""
        self.changes.append(Change(action, name, before, after))
        if step:
            self._steps.append(step)

    def then(self, step: Callable[[], object]) -> None:
        """Note a step that is part of changes already noted."""
        self._steps.append(step)

    def carry_out(self) -> None:
        """Do all of it.

        Raises:
            NetworkError: something is in the way. What was done stays, and the next plan goes on from there.
        """
        for step in self._steps:
            step()

    @property
    def actions(self) -> list[str]:
        """What is done, one line each."""
        return [change.action for change in self.changes]

    @property
    def diff(self) -> list[dict[str, str]]:
        """The differences in the form of Ansible's diff mode, one entry for each thing that differs."""
        return list(self._entries())

    def _entries(self) -> Iterator[dict[str, str]]:
        for change in self.changes:
            if change.before or change.after:
                yield {
                    "before_header": change.name,
                    "after_header": change.name,
                    "before": "".join(f"{line}\n" for line in change.before),
                    "after": "".join(f"{line}\n" for line in change.after),
                }
