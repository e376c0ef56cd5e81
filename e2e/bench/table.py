"""Large route tables: the last endpoint against the first, memory, and a change
while requests are served."""

import collections
import dataclasses
import time

from e2e.bench import cells, procfs, rounds, targets
from e2e.bench.cost import quietly
from e2e.bench.idle import settled
from e2e.bench.openloop import OpenLoop
from e2e.bench.options import Options
from e2e.bench.proxies import PATHS, Ours
from e2e.bench.report import Finding
from e2e.bench.rounds import Sample
from e2e.bench.stage import Stage
from e2e.bench.stats import median, quantile
from e2e.bench.targets import OURS

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

                result = rounds.measure(list(ends), run, options.rounds, options.tell)
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
    """Of ours only: the others start anew to read a new table."""

    name = "change"
    title = "a changed table of %s endpoints, applied while serving 2,000 requests/s" % COUNT

    RATE = 2000
    CONNECTIONS = 64
    CHANGES = 3
    # Seconds before the change, and the most that it may take.
    QUIET, LONGEST = 4.0, 30.0

    def measure(self, options: Options) -> Finding:
        f = Finding(self.name, self.title, ["p50 ms", "p99 ms", "max ms"], data=[])
        kind = next((k for k in options.kinds if k.name == OURS), None)
        if kind is None:
            return f
        many = [*PATHS, *paths()]
        changes: list[_Observed] = []
        notes: list[str] = []
        lost: collections.Counter[str] = collections.Counter()
        with Stage([kind], paths=many) as stage:
            proxy = stage.proxies[OURS]
            assert isinstance(proxy, Ours)
            rest = settled(proxy, still=3)
            for i in range(self.CHANGES):
                runs: list[_Observed] = []

                def change():
                    # Every one is another change.
                    runs.append(self._change(stage, proxy, proxy.text(many, weight=2 + self.CHANGES * len(runs) + i)))

                notes.append(quietly(lambda: stage.meter(proxy), change, attempts=2))
                for r in runs:
                    lost.update(r.lost)
                changes.append(runs[-1])
        f.data = [dataclasses.asdict(c) for c in changes]
        for row, part in (
            ("quiet", "quiet"), ("control plane reads the file", "reading"), ("data plane applies it, worst second", "applying"),
        ):  # fmt: skip
            f.rows[row] = ["%.2f" % (median([quantile(getattr(c, part), q) for c in changes]) / 1e3) for q in (0.5, 0.99, 1)]
        peak = max(c.peak for c in changes)
        f.notes.append(
            "medians of %d changes of every tenth endpoint; saved to applied %.1f s; memory before the first %.0f MB, at its peak %.0f MB"
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

    def _change(self, stage: Stage, proxy: Ours, text: str) -> "_Observed":
        procfs.reset_peak_rss(proxy.pid)
        with OpenLoop(
            "http://127.0.0.1:%d/bench" % proxy.port, self.QUIET + self.LONGEST, self.RATE, self.CONNECTIONS,
            stage.other_cpus, samples=stage.folder / "samples",
        ) as generator:  # fmt: skip
            start = time.monotonic()
            time.sleep(self.QUIET)
            saved = time.monotonic()
            accepted, applied = proxy.apply(text, within=self.LONGEST - 3)
            time.sleep(1.2)
            generator.stop()
            result = generator.result()
            latencies = generator.latencies()

        def between(begin: float, end: float) -> list[float]:
            return [latency for due, latency in latencies if begin <= due < end]

        # Windows of a second that begin while it is applied.
        seconds = [between(accepted + 0.25 * i, accepted + 0.25 * i + 1) for i in range(1 + int(4 * (applied - accepted)))]
        return _Observed(
            quiet=between(start + 1, saved), reading=between(saved, accepted), applying=max(seconds, key=lambda s: quantile(s, 0.99)),
            peak=procfs.peak_rss(proxy.pid), took=applied - saved, lost=result["failures"],
        )  # fmt: skip


@dataclasses.dataclass
class _Observed:
    """One change. Latencies in microseconds, memory in bytes."""

    quiet: list[float]
    reading: list[float]
    applying: list[float]
    peak: int
    took: float
    lost: dict[str, int]
