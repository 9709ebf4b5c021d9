# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection.
"""Tells a misspelt variable of ours from a variable of somebody else's.

A name that is wrongly reported stops a run for nothing, so in doubt it is somebody else's.
"""

from __future__ import annotations

from collections.abc import Collection

SHORTEST = 4
"""Letters of a word from which on one wrong letter is a slip: ``ip`` is no misspelt ``id``."""


class Names:
    """Names that are ours, to compare others with."""

    def __init__(self, ours: Collection[str]) -> None:
        self._ours = {name: name.split("_") for name in sorted(ours)}
        self._squeezed = {_squeezed(name): name for name in self._ours}
        self._words = {word for words in self._ours.values() for word in words}

    def meant(self, name: str) -> str:
        """The name of ours of which ``name`` is a misspelling, or an empty text.

        It has as many words, and each is the right one or a slip of it; or differs by underscores and capitals only.
        """
        if name in self._ours:
            return ""
        words = name.split("_")
        near = (
            other
            for other, right in self._ours.items()
            if len(right) == len(words)
            and all(
                word == meant or self._is_slip(word, meant) for word, meant in zip(words[:-1], right[:-1], strict=True)
            )
            and (words[-1] == right[-1] or self._is_last_slip(words[-1], right[-1]))
        )
        return self._squeezed.get(_squeezed(name)) or next(near, "")

    def _is_last_slip(self, word: str, meant: str) -> bool:
        """A plural that is forgotten is a slip; a plural of a word of ours is somebody's list of such things."""
        return word != f"{meant}s" and self._is_slip(word, meant)

    def _is_slip(self, word: str, meant: str) -> bool:
        """One letter is missing, too much, another, or changed places with the next; or the plural is forgotten.

        A word that is one of ours elsewhere is spelt right, and means something else: ``ports`` is no ``parts``.
        """
        if word in (f"{meant}s", meant.removesuffix("s"), meant.removesuffix("es")):
            return len(word) >= SHORTEST
        return (
            min(len(word), len(meant)) >= SHORTEST
            and word not in self._words
            and f"{word}s" not in self._words
            and _is_one_edit(word, meant)
        )


def _squeezed(name: str) -> str:
    return name.replace("_", "").lower()


def _is_one_edit(one: str, other: str) -> bool:
    """Whether a letter added, removed, replaced, or exchanged with its neighbour makes one of the other."""
    if len(one) > len(other):
        one, other = other, one
    start = next((place for place, letter in enumerate(one) if letter != other[place]), len(one))
    rest, other_rest = one[start:], other[start:]
    if len(one) < len(other):
        return rest == other_rest[1:]
    return rest[1:] == other_rest[1:] or (rest[:2] == other_rest[1::-1] and rest[2:] == other_rest[2:])
