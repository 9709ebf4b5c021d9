# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why something that a client or an operator asked for was not done."""

from __future__ import annotations

DISK = "the server cannot write it down just now, and changed nothing. Try again later."


class RefusedError(Exception):
    """What was asked cannot be done, and nothing was changed.

    Attributes:
        reason: a word for programs and metrics.
    """

    def __init__(self, reason: str, message: str) -> None:
        """Keep both."""
        super().__init__(message)
        self.reason = reason


class AwayError(Exception):
    """The session is made, but its exit does not answer: the client is blocked until it does, or until the end."""


class NoSessionError(RefusedError):
    """There is no session to end."""
