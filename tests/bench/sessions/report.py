"""What was measured, as Markdown."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

AIM_START, AIM_FLAT, AIM_PACKETS = 0.020, 1.25, 0.95
"""Seconds on top of one round trip; how long a start may take, and how many packets are left, next to one session."""

AIM_DOCUMENT = {1: 1.0, 253: 1.3}
"""Packets, answers and new flows a second next to the document's, at so many sessions."""

Rounds = dict[str, list[float]]
"""By side: ours, document, and ours with one session, near and far; one value for each round."""


@dataclass
class Figures:
    """At one number of sessions, in seconds or in packets a second."""

    start: Rounds = field(default_factory=dict)
    stop: Rounds = field(default_factory=dict)
    packets: Rounds = field(default_factory=dict)
    plain: Rounds = field(default_factory=dict)
    answers: Rounds = field(default_factory=dict)
    plain_answers: Rounds = field(default_factory=dict)
    flows: Rounds = field(default_factory=dict)
    ready: list[float] = field(default_factory=list)
    restored: list[float] = field(default_factory=list)
    bulk: list[float] = field(default_factory=list)
    one_by_one: str = ""


@dataclass
class Notes:
    """What was measured once: round trips, pairs of start and stop, in seconds; the machine's load at both ends."""

    near: float
    far: float
    load: list[float] = field(default_factory=list)
    busy: list[tuple[float, float]] = field(default_factory=list)
    tracked: dict[int, list[tuple[float, float]]] = field(default_factory=dict)


def spread(values: list[float], digits: int = 1, scale: float = 1.0) -> str:
    """The median, and the smallest and largest value."""
    scaled = [value * scale for value in values]
    return f"{median(scaled):,.{digits}f} ({min(scaled):,.{digits}f}..{max(scaled):,.{digits}f})"


def ratios(over: list[float], under: list[float]) -> list[float]:
    """The ratio of each round."""
    return [a / b for a, b in zip(over, under, strict=True)]


def milliseconds(values: list[float]) -> str:
    """Times, with a digit after the point where they are short."""
    return spread(values, 1 if median(values) < 0.02 else 0, 1000)


def thousands(values: list[float]) -> str:
    """Rates, with a digit after the point where they are small."""
    return spread(values, 0 if median(values) >= 20_000 else 1, 1e-3)


def start_row(found: Figures) -> list[str]:
    """Times of starts and stops."""
    cells = []
    for times in (found.start, found.stop):
        cells += [milliseconds(times["ours"]), milliseconds(times["document"])]
        cells.append(spread(ratios(times["document"], times["ours"]), 0))
    return [*cells, spread(ratios(found.start["ours"], found.start["one"]), 2), milliseconds(found.start["far"])]


def rates_row(rates: Rounds) -> list[str]:
    """Rates of both sides, and compared."""
    return [
        thousands(rates["ours"]),
        thousands(rates["document"]),
        spread(ratios(rates["ours"], rates["document"])),
        spread(ratios(rates["ours"], rates["one"]), 2),
    ]


def restore_row(found: Figures) -> list[str]:
    """Times of restarts."""
    slower = spread(ratios(found.bulk, found.restored))
    return [spread(found.ready, 2), spread(found.restored, 2), found.one_by_one, spread(found.bulk, 2), slower]


SIDES = "here | document | document : here"
RATES = "here | document | here : document | here, of one session"
TABLES = (
    (
        "Start and stop one more session, milliseconds",
        f"start: {SIDES} | stop: {SIDES} | start here, of one session | 20 ms apart",
        start_row,
    ),
    ("Thousands of packets a second, clients with a session", RATES, lambda found: rates_row(found.packets)),
    ("Thousands of packets a second, clients without a session", RATES, lambda found: rates_row(found.plain)),
    ("Thousands of answers a second, to clients with a session", RATES, lambda found: rates_row(found.answers)),
    (
        "Thousands of answers a second, to clients without a session",
        RATES,
        lambda found: rates_row(found.plain_answers),
    ),
    ("Thousands of new UDP flows a second", RATES, lambda found: rates_row(found.flows)),
    (
        "Restore all sessions, seconds",
        "here: entry ready | exit too | document: one by one | in bulk | bulk : here",
        restore_row,
    ),
)


def show(figures: dict[int, Figures], notes: Notes) -> None:
    """Print it all."""
    for title, header, row in TABLES:
        print(f"\n### {title}\n\n| sessions | {header} |\n|{'---|' * (header.count('|') + 2)}")
        for size, found in figures.items():
            print(f"| {size:,} | {' | '.join(row(found))} |")
    most = max(figures)
    print(f"\n### Start and stop with {most:,} sessions, milliseconds\n\n| | starts | start | 99 % below | stop |")
    print("|---|---|---|---|---|")
    conditions = {"beside renewals": notes.busy}
    conditions |= {f"{number:,} flows tracked": pairs for number, pairs in notes.tracked.items()}
    for condition, pairs in conditions.items():
        starts, stops = map(list, zip(*pairs, strict=True))
        late = sorted(starts)[int(len(starts) * 0.99)]
        cells = [f"{len(starts):,}", milliseconds(starts), f"{late * 1000:.1f}", milliseconds(stops)]
        print(f"| {condition} | {' | '.join(cells)} |")
    loads = " before, ".join(f"{load:.1f}" for load in notes.load)
    print(f"\nLoad of the machine: {loads} after; the aims hold for one that does nothing else.\n")
    for line in aims(figures, notes):
        print(f"* {line}")


def aims(figures: dict[int, Figures], notes: Notes) -> list[str]:
    """Whether the aims are met; an aim that is not is no failure of the bench."""
    most = figures[max(figures)]
    starts = {
        "near": (notes.near, max(median(found.start["ours"]) for found in figures.values())),
        f"round trip of {notes.far * 1000:.0f} ms": (
            notes.far, max(median(found.start["far"]) for found in figures.values())
        ),
    }  # fmt: skip
    for number, pairs in notes.tracked.items():
        starts[f"near, {number:,} flows tracked"] = (notes.near, median(start for start, _stop in pairs))
    found = [
        f"{met(took < AIM_START + trip)}: a start below 20 ms plus one round trip ({where}): {took * 1000:.1f} ms"
        for where, (trip, took) in starts.items()
    ]
    change = median(ratios(most.start["ours"], most.start["one"]))
    found.append(
        f"{met(change < AIM_FLAT)}: a start beside {max(figures):,} sessions takes {change:.2f} of one beside 1"
    )
    kept = median(ratios(most.packets["ours"], most.packets["one"]))
    what = f"packets a second with {max(figures):,} sessions within 5 % of those with 1"
    for size, aim in AIM_DOCUMENT.items():
        here = figures.get(size)
        rates = {"packets": here.packets, "answers": here.answers, "new flows": here.flows} if here else {}
        for name, rate in rates.items():
            ratio = median(ratios(rate["ours"], rate["document"]))
            found.append(
                f"{met(ratio >= aim)}: {name} with {size} sessions, here : document at least {aim}: {ratio:.2f}"
            )
    return [*found, f"{met(kept >= AIM_PACKETS)}: {what}: {kept:.2f} of it"]


def met(is_met: bool) -> str:
    """A verdict."""
    return "met" if is_met else "NOT MET"
