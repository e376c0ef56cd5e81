"""Large route tables: the last endpoint against the first, memory, and a change
while requests are served."""

import collections
import dataclasses
import datetime
import time

from e2e.bench import cells, procfs, rounds, targets
from e2e.bench.cost import quietly
from e2e.bench.idle import settled
from e2e.bench.openloop import OpenLoop
from e2e.bench.options import Options
from e2e.bench.proxies import PATHS, Ours, Place
from e2e.bench.report import Finding
from e2e.bench.rounds import Sample
from e2e.bench.stage import Stage
from e2e.bench.stats import median, quantile
from e2e.bench.targets import OURS
from e2e.harness import ControlPlane, eventually, get
from e2e.harness.scenario import write

ENDPOINTS = 100_000
COUNT = format(ENDPOINTS, ",")


def paths() -> list[str]:
    return ["/shop/item-%06d" % i for i in range(ENDPOINTS)]


class Table:
    name = "table"
    title = "%s exact endpoints, each to the same two backends" % COUNT

    def measure(self, options: Options) -> Finding:
        f = Finding(self.name, self.title, ["MB, a few endpoints", "MB, " + COUNT, "CPU µs/request, first", "last", "last ÷ first"], data={})
        many = paths()
        ends = {"first": many[0], "last": many[-1]}
        for kind in options.kinds:
            with Stage([kind]) as stage:
                small = settled(stage.proxies[kind.name])
            with Stage([kind], paths=many) as stage:
                proxy = stage.proxies[kind.name]
                large = settled(proxy, still=3)

                def run(end: str) -> Sample:
                    return stage.sample(proxy, lambda: cells.closed(64, ends[end])(stage, proxy, options.seconds))

                # Both ends cost the same, or nearly: that takes more rounds to tell.
                result = rounds.measure(list(ends), run, 2 * options.rounds, options.tell)
            first, last = (result.values(end, lambda s: s.micros) for end in ends)
            ratio = targets.ratio(last, first)
            f.rows[kind.name] = [
                "%.1f" % (small / 1e6), "%.1f" % (large / 1e6), "%.2f" % median(first), "%.2f" % median(last), "%.2f" % ratio,
            ]  # fmt: skip
            f.data[kind.name] = {"small": small, "large": large, "first": first, "last": last}
            f.notes += ["%s: %s" % (kind.name, note) for note in result.notes]
            if result.errors:
                f.errors[kind.name] = next(iter(result.errors.values()))
            elif kind.name == OURS:
                mark = " (disturbed)" if result.disturbed else ""
                what = "last of %s endpoints ÷ first, CPU per request%s" % (COUNT, mark)
                f.verdicts.append(targets.at_most(what, ratio, targets.LAST_TO_FIRST))
                f.verdicts.append(targets.at_most("memory for %s endpoints, MB" % COUNT, large / 1e6, targets.TABLE_MB, "%.0f"))
        return f


class Change:
    """Of ours only: the others start anew to read a new table.

    What is measured is the data plane. The control plane that reads 100,000 endpoints
    would share a CPU with the load; so the next table comes from a second one, which
    has finished before the first is killed."""

    name = "change"
    title = "a changed table of %s endpoints, applied while serving 2,000 requests/s" % COUNT

    RATE = 2000
    CONNECTIONS = 64
    CHANGES = 5
    # Seconds before the change, and the most that it may take.
    QUIET, LONGEST = 5.0, 20.0

    def measure(self, options: Options) -> Finding:
        f = Finding(self.name, self.title, ["p50 ms", "p99 ms", "max ms"], data=[])
        if OURS not in (k.name for k in options.kinds):
            return f
        many = [*PATHS, *paths()]
        changes: list[_Observed] = []
        notes: list[str] = []
        lost: collections.Counter[str] = collections.Counter()
        with Stage([_Handed], paths=many) as stage:
            proxy = stage.proxies[OURS]
            assert isinstance(proxy, _Handed)
            rest = settled(proxy, still=3)
            for i in range(self.CHANGES):
                runs: list[_Observed] = []

                def change():
                    # Every one is another change.
                    proxy.prepare(proxy.text(many, weight=2 + self.CHANGES * len(runs) + i))
                    runs.append(self._change(stage, proxy))

                notes.append(quietly(lambda: stage.meter(proxy), change, attempts=2))
                for r in runs:
                    lost.update(r.lost)
                changes.append(runs[-1])
        f.data = [dataclasses.asdict(c) for c in changes]
        for row, part in (("quiet", "quiet"), ("the worst second of it", "worst"), ("applying, worst second", "applying")):
            f.rows[row] = ["%.2f" % (median([quantile(getattr(c, part), q) for c in changes]) / 1e3) for q in (0.5, 0.99, 1)]
        peak = max(c.peak for c in changes)
        f.notes.append(
            "medians of %d changes of every tenth endpoint; received to applied %.2f s; memory before the first %.0f MB, at its peak %.0f MB"
            % (len(changes), median([c.took for c in changes]), rest / 1e6, peak / 1e6)
        )
        f.notes += sorted({n for n in notes if n})[-1:]
        if lost:
            f.errors[OURS] = "requests lost: " + ", ".join("%d × %s" % (n, why) for why, n in lost.items())
        mark = " (disturbed)" if any(notes) else ""
        slow = median([quantile(c.applying, 0.99) / max(quantile(c.quiet, 0.99), 1) for c in changes])
        what = "p99 in the worst second of a change of %s endpoints, × quiet%s" % (COUNT, mark)
        f.verdicts.append(targets.at_most(what, slow, targets.CHANGE_P99))
        f.verdicts.append(targets.at_most("peak memory in that change, × memory before it", peak / rest, targets.CHANGE_PEAK))
        return f

    def _change(self, stage: Stage, proxy: "_Handed") -> "_Observed":
        procfs.reset_peak_rss(proxy.pid)
        with OpenLoop(
            "http://127.0.0.1:%d/bench" % proxy.port, self.QUIET + self.LONGEST, self.RATE, self.CONNECTIONS,
            stage.other_cpus, samples=stage.folder / "samples",
        ) as generator:  # fmt: skip
            start = time.monotonic()
            time.sleep(self.QUIET)
            given = time.monotonic()
            proxy.hand_over()
            # Nobody asks meanwhile: that would take a CPU from the load.
            time.sleep(3)
            received, applied = proxy.times(self.LONGEST - 6)
            time.sleep(max(0.0, applied + 1.5 - time.monotonic()))
            generator.stop()
            result = generator.result()
            latencies = generator.latencies()

        def worst(begin: float, end: float) -> list[float]:
            """The latencies of the worst second that begins between two times."""
            begins = [begin + 0.25 * i for i in range(1 + max(0, int(4 * (end - begin))))]
            return max(([latency for due, latency in latencies if b <= due < b + 1] for b in begins), key=lambda s: quantile(s, 0.99))

        took = applied - received
        return _Observed(
            quiet=[latency for due, latency in latencies if start + 1 <= due < given],
            # Of as many seconds.
            worst=worst(given - 1 - took, given - 1), applying=worst(received, applied),
            peak=procfs.peak_rss(proxy.pid), took=took, lost=result["failures"],
        )  # fmt: skip


@dataclasses.dataclass
class _Observed:
    """One change. Latencies in microseconds, memory in bytes."""

    quiet: list[float]
    worst: list[float]
    applying: list[float]
    peak: int
    took: float
    lost: dict[str, int]


class _Handed(Ours):
    """With two control planes: the data plane is handed from the one to the other."""

    def __init__(self, place: Place):
        super().__init__(place)
        self._next = ControlPlane("controlplane-2", self.folder / "config-2.yaml", self.folder / "controlplane-2.log")
        self._next.how = self.control_plane.how
        self.data_plane.argv += ["--controlplane", self._next.server]

    @property
    def pids(self) -> list[int]:
        return [p.pid for p in (self.data_plane, self.control_plane, self._next) if p.running()]

    def prepare(self, text: str) -> None:
        """Has the control plane to come read its file, and waits until it rests."""
        write(self._next.config, text)
        self._next.start()
        eventually(lambda: get(self._next.admin_port, "/readyz").status == 200, "the next control plane is ready", 60, every=0.5)
        time.sleep(1)

    def hand_over(self) -> None:
        self._since = time.time()
        self.control_plane.kill()
        self.control_plane, self._next = self._next, self.control_plane

    def times(self, within: float) -> tuple[float, float]:
        """When (time.monotonic()) the control plane was reached, and the table applied."""

        def of(message: str) -> float:
            stamps = (datetime.datetime.fromisoformat(r["time"]).timestamp() for r in self.data_plane.records() if r["msg"] == message)
            return next((t for t in stamps if t >= self._since), 0)

        applied = eventually(lambda: of("serving"), "the table is applied", within, every=0.5)
        monotonic = time.monotonic() - time.time()
        return of("control plane connected") + monotonic, applied + monotonic

    def stop(self) -> None:
        self._next.stop()
        super().stop()
