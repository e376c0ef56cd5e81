"""The measurement of a cell: its rounds, and what is printed of them."""

import dataclasses

from e2e.bench import rounds, targets
from e2e.bench.cells import Cell
from e2e.bench.options import Options
from e2e.bench.report import Finding
from e2e.bench.rounds import Result, Sample
from e2e.bench.stage import Stage
from e2e.bench.targets import BEFORE, OURS, RELAY


class Work:
    def __init__(self, cell: Cell):
        self.name, self.title = cell.name, cell.title
        self.cell = cell

    def measure(self, options: Options) -> Finding:
        with Stage(options.kinds, self.cell.threads) as stage:

            def run(name: str, seconds: int = options.seconds) -> Sample:
                proxy = stage.proxies[name]
                return stage.sample(proxy, lambda: self.cell.load(stage, proxy, seconds))

            names = list(stage.proxies)
            for name in names:  # connections to backends are made, memory is allocated
                run(name, 1)
            return finding(self.cell, rounds.measure(names, run, options.rounds, options.tell))


def finding(cell: Cell, result: Result) -> Finding:
    f = Finding(
        cell.name, cell.title,
        ["CPU µs/request", "user", "system", "× better peer", "× origin", "requests/s", "p50 ms", "p99 ms", "memory MB"],
        errors=result.errors,
        data={
            "rounds": [{name: dataclasses.asdict(s) for name, s in r.items()} for r in result.rounds],
            "repeated": result.repeated,
            "disturbed": result.disturbed,
        },
    )  # fmt: skip
    micros = {name: result.values(name, lambda s: s.micros) for name in result.names}
    best = targets.better_peer({name: v for name, v in micros.items() if name not in f.errors})
    slowest = any(s.outcome.p999 for r in result.rounds for s in r.values())
    if cell.bulk:
        f.columns.insert(0, "GB/CPU s")
    if slowest:
        f.columns.insert(-1, "p99.9 ms")
    for name in result.names:

        def median(of, name=name):
            return result.median(name, of)

        row = [
            "%.2f" % median(lambda s: s.micros), "%.2f" % median(lambda s: s.user_micros),
            "%.2f" % median(lambda s: s.micros - s.user_micros),
            "%.2f" % targets.ratio(micros[name], micros[best]) if best else "-",
            "%.2f" % median(lambda s: s.to_origin), "%.0f" % median(lambda s: s.rate),
            "%.2f" % median(lambda s: s.outcome.p50 / 1e3), "%.2f" % median(lambda s: s.outcome.p99 / 1e3),
            "%.1f" % median(lambda s: s.memory / 1e6),
        ]  # fmt: skip
        if cell.bulk:
            row.insert(0, "%.2f" % median(lambda s: _gb_per_cpu_second(s, cell.bulk)))
        if slowest:
            row.insert(-1, "%.2f" % median(lambda s: s.outcome.p999 / 1e3))
        f.rows[name] = row
    if BEFORE in micros and OURS in micros:
        f.notes.append("ours × before: %.3f" % targets.ratio(micros[OURS], micros[BEFORE]))
    f.notes += result.notes
    if OURS in result.names and OURS not in f.errors:
        _judge(f, cell, result, micros, best)
    return f


def _gb_per_cpu_second(s: Sample, size: int) -> float:
    return s.outcome.requests * size / 1e9 / s.cost.proxy.total if s.cost.proxy.total else 0.0


def _judge(f: Finding, cell: Cell, result: Result, micros: dict[str, list[float]], best: str | None) -> None:
    mark = " (disturbed)" if result.disturbed else ""
    if best and cell.name in targets.CPU_RATIO:
        value = targets.ratio(micros[OURS], micros[best])
        f.verdicts.append(targets.at_most("%s, × %s%s" % (cell.title, best, mark), value, targets.CPU_RATIO[cell.name]))
    if cell.bulk and RELAY in micros and RELAY not in f.errors:
        value = targets.ratio(micros[RELAY], micros[OURS])  # GB per CPU second, ours to the relay's
        f.verdicts.append(targets.at_least("%s, GB per CPU second × relay%s" % (cell.title, mark), value, targets.BULK_TO_RELAY))
    if cell.name == "c64" and "nginx" in micros and "nginx" not in f.errors:
        user = [result.values(name, lambda s: s.user_micros) for name in (OURS, "nginx")]
        f.verdicts.append(targets.at_most("user time per request at c=64, × nginx" + mark, targets.ratio(*user), targets.USER_TO_NGINX))
    if cell.name == "rate" and "nginx" in micros and "nginx" not in f.errors:
        for what, of in (("p50", lambda s: s.outcome.p50), ("p99", lambda s: s.outcome.p99)):
            value = targets.ratio(result.values(OURS, of), result.values("nginx", of))
            f.verdicts.append(targets.at_most("%s, %s × nginx%s" % (cell.title, what, mark), value, 1.0))
