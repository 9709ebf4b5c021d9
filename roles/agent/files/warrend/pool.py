# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The session addresses of this server's clients: which are taken."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from .config import Config, Network
from .exits import Pair
from .metrics import Metrics
from .refusals import POOL_IS_FULL, RefusedError

ATTEMPTS = 8192
"""Of a pool of 254 with one address left, 8,192 draws miss it once in 10^14 times."""


class Pool:
    """Session addresses, of both families."""

    def __init__(self, config: Config, metrics: Metrics) -> None:
        self._config, self._metrics = config, metrics
        self._taken: set[str] = set()

    def draw(self) -> Pair:
        """Take a pair of addresses that nobody has.

        Raises:
            RefusedError: none was found.
        """
        pair = self._free(self._config.session4), self._free(self._config.session6)
        self.take(pair)
        return pair

    def take(self, addresses: Iterable[str]) -> None:
        """Give addresses to nobody else."""
        self._taken |= set(addresses)

    def release(self, addresses: Iterable[str]) -> None:
        """Let others have addresses."""
        self._taken -= set(addresses)

    def _free(self, network: Network) -> str:
        """A free address: random, so that it says nothing of the client or of the order."""
        hosts = network.num_addresses - 2
        for _attempt in range(ATTEMPTS):
            address = str(network.network_address + 1 + secrets.randbelow(hosts))
            if address not in self._taken:
                return address
        self._metrics.failures.labels("pool_full").inc()
        raise RefusedError(POOL_IS_FULL, server=self._config.slug, size=hosts)
