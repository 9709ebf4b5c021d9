# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Prometheus is told. No label and no value names a client."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric

LATENCIES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0)


class Metrics:
    """Counters that the agent raises, and gauges that are read when somebody asks."""

    def __init__(self) -> None:
        """Start at nought."""
        self.registry = CollectorRegistry()
        self.starts = Counter("warren_session_starts", "Sessions started", ["exit"], registry=self.registry)
        self.failures = Counter(
            "warren_session_start_failures", "Sessions not started, or not yet", ["reason"], registry=self.registry
        )
        self.ends = Counter("warren_session_ends", "Sessions ended", ["reason"], registry=self.registry)
        self.repairs = Counter(
            "warren_elements_repaired", "Elements of nftables maps that were not as wanted", registry=self.registry
        )
        self.latency = Histogram(
            "warren_backend_call_seconds",
            "Calls to the backends of other servers",
            ["exit", "op"],
            buckets=LATENCIES,
            registry=self.registry,
        )

    def gauges(self, read: Callable[[], Iterable[tuple[str, str, str, dict[str, float]]]]) -> None:
        """Have gauges read on demand: name, meaning, label and values by that label."""
        self.registry.register(_Gauges(read))


class _Gauges:
    def __init__(self, read: Callable[[], Iterable[tuple[str, str, str, dict[str, float]]]]) -> None:
        self._read = read

    def describe(self) -> list[Metric]:
        """Nothing, or registering would ask for values too early."""
        return []

    def collect(self) -> Iterable[Metric]:
        """The values now."""
        for name, meaning, label, values in self._read():
            family = GaugeMetricFamily(name, meaning, labels=[label])
            for key, value in values.items():
                family.add_metric([key], value)
            yield family
