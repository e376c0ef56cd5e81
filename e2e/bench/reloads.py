"""Requests that are lost, and how long the slowest take, while the configuration
changes under a constant rate."""

import bisect
import collections
import dataclasses
import time

from e2e.bench import targets
from e2e.bench.cost import quietly
from e2e.bench.openloop import OpenLoop
from e2e.bench.options import Options
from e2e.bench.proxies import PATHS, Proxy
from e2e.bench.report import Finding
from e2e.bench.stage import Stage
from e2e.bench.stats import median, quantile
from e2e.bench.targets import OURS

RATE = 4000
CONNECTIONS = 64
# Clients come and go: one in so many requests opens a connection.
PER_CONNECTION = 20
# Quiet and reloading take turns: in each of the TURNS it is quiet for some seconds, then
# there are some reloads. What counts is the median of the turns: one moment in which the
# machine stands still is the slowest thousandth of its turn, and would be that of all.
TURNS = 5
QUIET = 3.0
RELOADS_OF_TURN = 4
# From one reload to the next; so long it counts as reloading.
EVERY = 0.5
RELOADS = TURNS * RELOADS_OF_TURN
TURN = QUIET + RELOADS_OF_TURN * EVERY
# The first second is everybody's beginning and does not count.
BEGINNING = 1.0


class Reloads:
    name = "reloads"
    title = "%d reloads under %s requests/s, a new connection for one in %d" % (RELOADS, format(RATE, ","), PER_CONNECTION)

    def measure(self, options: Options) -> Finding:
        f = Finding(
            self.name, self.title,
            ["requests", "lost", "quiet: p50 ms", "p99 ms", "p99.9 ms", "reloading: p50 ms", "p99 ms", "p99.9 ms"],
            data={},
        )  # fmt: skip
        for kind in options.kinds:
            runs: list[_Run] = []
            with Stage([kind]) as stage:
                (proxy,) = stage.proxies.values()
                note = quietly(lambda: stage.meter(proxy), lambda: runs.append(_run(stage, proxy)), attempts=2)
            if note:
                f.notes.append("%s: %s" % (kind.name, note))
            # A disturbed run is no excuse for a lost request.
            lost = sum((collections.Counter(r.lost) for r in runs), collections.Counter())
            last = runs[-1]
            times = [
                "%.2f" % (median([quantile(getattr(turn, part), q) for turn in last.turns]) / 1e3)
                for part in ("quiet", "reloading") for q in (0.5, 0.99, 0.999)
            ]  # fmt: skip
            f.rows[kind.name] = [str(sum(r.sent for r in runs)), str(lost.total()), *times]
            f.data[kind.name] = [dataclasses.asdict(r) for r in runs]
            if lost:
                f.notes.append("%s lost: %s" % (kind.name, ", ".join("%d × %s" % (n, why) for why, n in lost.items())))
            if kind.name == OURS:
                f.verdicts.append(targets.at_most("requests lost in %d reloads" % (RELOADS * len(runs)), lost.total(), 0, "%d"))
                slow = median([quantile(turn.reloading, 0.999) / max(quantile(turn.quiet, 0.999), 1) for turn in last.turns])
                f.verdicts.append(targets.at_most("p99.9 while reloading, × quiet%s" % (" (disturbed)" if note else ""), slow, targets.RELOAD_P999))
        return f


@dataclasses.dataclass
class _Turn:
    """Latencies in microseconds."""

    quiet: list[float]
    reloading: list[float]


@dataclasses.dataclass
class _Run:
    """lost is how many requests were, by the reason."""

    turns: list[_Turn]
    sent: int
    lost: dict[str, int]


def _run(stage: Stage, proxy: Proxy) -> _Run:
    seconds = BEGINNING + TURNS * TURN
    samples = stage.folder / "samples"
    other = [*PATHS, "/other"]
    changes: list[float] = []
    with OpenLoop(
        "http://127.0.0.1:%d/bench" % proxy.port, seconds, RATE, CONNECTIONS, stage.other_cpus, PER_CONNECTION, samples
    ) as generator:
        start = time.monotonic() + BEGINNING
        for i in range(RELOADS):
            turn, n = divmod(i, RELOADS_OF_TURN)
            # Reloads come at fixed times, as the requests do: nothing is waited for here.
            time.sleep(max(0.0, start + turn * TURN + QUIET + n * EVERY - time.monotonic()))
            changes.append(time.monotonic())
            proxy.change(other if i % 2 == 0 else PATHS)
        result = generator.result()
        latencies = generator.latencies()
    proxy.wait_changed(RELOADS)
    turns = [_Turn([], []) for _ in range(TURNS)]
    for due, latency in latencies:
        if due >= start:
            turn = turns[min(int((due - start) / TURN), TURNS - 1)]
            last = bisect.bisect(changes, due) - 1
            (turn.reloading if last >= 0 and due - changes[last] < EVERY else turn.quiet).append(latency)
    return _Run(turns, result["sent"], result["failures"])
