"""What the project aims at, and whether a figure meets it.

A ratio is ours to the better of nginx and HAProxy in the same rounds."""

import dataclasses
from collections.abc import Sequence

from e2e.bench.stats import median

# The names of ours, of another build of ours, of those that we compare with, and of
# the relay that knows no HTTP.
OURS = "ours"
BEFORE = "before"
PEERS = ("nginx", "haproxy")
RELAY = "relay"

# CPU time per request × the better peer, by cell: at most.
CPU_RATIO = {
    "c1": 1.00,
    "c64": 0.85,
    "c256": 0.82,
    "c1000": 0.75,
    "2cores": 0.90,
    "close": 0.80,
    "post16k": 0.85,
    "64k": 0.95,
    "rate": 1.00,
}
# What a second of CPU time moves, and what user time a request costs, depends on the
# machine more than on the proxy: the aims, 4.3 GB where the byte relay had 4.7 and
# 1.5 µs where nginx took 2.25, are aims relative to them.
BULK_TO_RELAY = 0.91  # at least
USER_TO_NGINX = 0.67  # at most
# At most.
SYSTEM_CALLS = 4.5
IDLE_KB = 0.5
LAST_TO_FIRST = 1.05
TABLE_MB = 60
CHANGE_P99 = 2.0
CHANGE_PEAK = 3.0
# "As if quiet" for a high quantile of a few ten thousand requests.
RELOAD_P999 = 1.5


@dataclasses.dataclass
class Verdict:
    """One line of the table of targets."""

    what: str
    value: str
    target: str
    met: bool


def at_most(what: str, value: float, limit: float, form: str = "%.2f", beside: str = "") -> Verdict:
    """value is rounded as it is shown, so that the line does not contradict itself."""
    shown = form % value
    return Verdict(what, shown + beside, "≤ " + form % limit, float(shown) <= limit)


def at_least(what: str, value: float, limit: float, form: str = "%.2f") -> Verdict:
    shown = form % value
    return Verdict(what, shown, "≥ " + form % limit, float(shown) >= limit)


def better_peer(values: dict[str, Sequence[float]]) -> str | None:
    """The peer with the lower median; None when there is no peer."""
    peers = [p for p in PEERS if values.get(p)]
    return min(peers, key=lambda p: median(values[p]), default=None)


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios of each round: what disturbs a round disturbs both."""
    return median([a / b for a, b in zip(ours, theirs) if b > 0])
