"""From the rounds of a cell to what is printed of them. Pure."""

import dataclasses

from e2e.bench import targets
from e2e.bench.report import Finding
from e2e.bench.rounds import Result, Sample
from e2e.bench.targets import OURS


def finding(result: Result) -> Finding:
    cell = result.cell
    f = Finding(
        cell.name, cell.title,
        ["CPU µs/request", "user", "system", "× better peer", "× origin", "requests/s", "p50 ms", "p99 ms", "RSS MB"],
        errors=result.errors,
        data={
            "rounds": [{name: dataclasses.asdict(s) for name, s in r.items()} for r in result.rounds],
            "repeated": result.repeated,
            "disturbed": result.disturbed,
        },
    )  # fmt: skip
    micros = {name: result.values(name, lambda s: s.micros) for name in result.names}
    best = targets.better_peer({name: v for name, v in micros.items() if name not in f.errors})
    if cell.bulk:
        f.columns.insert(0, "GB/CPU s")
    for name in result.names:

        def median(of, name=name):
            return result.median(name, of)

        row = [
            "%.2f" % median(lambda s: s.micros), "%.2f" % median(lambda s: s.user_micros),
            "%.2f" % median(lambda s: s.micros - s.user_micros),
            "%.2f" % targets.ratio(micros[name], micros[best]) if best else "-",
            "%.2f" % median(lambda s: s.to_origin), "%.0f" % median(lambda s: s.rate),
            "%.2f" % median(lambda s: s.outcome.p50 / 1e3), "%.2f" % median(lambda s: s.outcome.p99 / 1e3),
            "%.1f" % median(lambda s: s.rss / 1e6),
        ]  # fmt: skip
        if cell.bulk:
            row.insert(0, "%.2f" % median(lambda s: _gb_per_cpu_second(s, cell.bulk)))
        f.rows[name] = row
    if result.repeated:
        f.notes.append("%d of %d rounds were run again" % (result.repeated, result.repeated + len(result.rounds)))
    if result.disturbed:
        f.notes.append("DISTURBED: " + result.disturbed)
    if OURS in result.names and OURS not in f.errors:
        _judge(f, result, micros, best)
    return f


def _gb_per_cpu_second(s: Sample, size: int) -> float:
    return s.outcome.requests * size / 1e9 / s.cost.proxy.total if s.cost.proxy.total else 0.0


def _judge(f: Finding, result: Result, micros: dict[str, list[float]], best: str | None) -> None:
    cell = result.cell
    mark = " (disturbed)" if result.disturbed else ""
    if best and cell.name in targets.CPU_RATIO:
        value = targets.ratio(micros[OURS], micros[best])
        f.verdicts.append(targets.at_most("%s, × %s%s" % (cell.title, best, mark), value, targets.CPU_RATIO[cell.name]))
    if cell.bulk:
        value = result.median(OURS, lambda s: _gb_per_cpu_second(s, cell.bulk))
        f.verdicts.append(targets.at_least("%s, GB per CPU second%s" % (cell.title, mark), value, targets.GB_PER_CPU_SECOND))
    if cell.name == "c64":
        value = result.median(OURS, lambda s: s.user_micros)
        f.verdicts.append(targets.at_most("user time per request at c=64, µs" + mark, value, targets.USER_MICROS))
    if cell.name == "rate" and "nginx" in micros and "nginx" not in f.errors:
        for what, of in (("p50", lambda s: s.outcome.p50), ("p99", lambda s: s.outcome.p99)):
            value = targets.ratio(result.values(OURS, of), result.values("nginx", of))
            f.verdicts.append(targets.at_most("%s, %s × nginx%s" % (cell.title, what, mark), value, 1.0))
