"""python3 -m e2e.bench: the command line of `make bench`."""

import argparse
import dataclasses
import json
import resource
import shlex
import sys
import time
import traceback

from e2e.bench import cells, machine, packages, proxies, report, rounds, session, work
from e2e.bench.cells import Cell
from e2e.bench.report import Finding
from e2e.bench.stage import Stage
from e2e.harness.processes import BUILD

# Open files that a proxy may need for the clients of the largest cell.
FILES = 18000


def main() -> int:
    options = parse()
    # The lines come as they are found, also into a file.
    sys.stdout.reconfigure(line_buffering=True)
    for program in ("controlplane", "dataplane", "bench/relay", "bench/openloop"):
        if not (BUILD / program).exists():
            print("there is no %s: run make bench" % (BUILD / program), file=sys.stderr)
            return 1
    try:
        missing = packages.provide(["nginx", "wrk", "haproxy", "strace"])
        _raise_limit()
    except RuntimeError as e:
        print("make bench: %s" % e, file=sys.stderr)
        return 1
    kinds = [k for k in proxies.ALL if k.name not in missing]
    started = time.monotonic()
    head = machine.describe(options.command)
    print(*head, "", sep="\n")
    findings = []
    for cell in options.cells:
        f = measure(cell, kinds, options)
        findings.append(f)
        print(report.figures(f), end="\n\n")
    print(*head, sep="\n")
    print("took      %.0f s, %d rounds of %d s for each cell\n" % (time.monotonic() - started, options.rounds, options.seconds))
    print("Targets (× is CPU time per request of ours to that of the better of nginx and HAProxy):\n")
    print(report.verdicts(findings))
    if options.json:
        with open(options.json, "w") as out:
            json.dump({"head": head, "findings": [dataclasses.asdict(f) for f in findings]}, out, indent=1)
    failed = [f.name for f in findings if f.errors]
    if failed:
        print("\nfailed: %s" % ", ".join(failed))
    return 1 if failed else 0


def measure(cell: Cell, kinds: list[type[proxies.Proxy]], options: argparse.Namespace) -> Finding:
    """A cell that cannot be run is a failed one; the others are still run."""
    try:
        with Stage([k for k in kinds if cell.name not in k.unfit], cell.threads) as stage:
            return work.finding(rounds.measure(stage, cell, options.rounds, options.seconds, lambda line: tell(cell, line)))
    except Exception as e:
        traceback.print_exc()
        return Finding(cell.name, cell.title, [], errors={"all": "%s: %s" % (type(e).__name__, e)})


def tell(cell: Cell, line: str) -> None:
    """Progress, for those who wait."""
    if sys.stderr.isatty():
        print("  %s %s" % (cell.name, line), file=sys.stderr)


def parse() -> argparse.Namespace:
    known = {c.name: c for c in cells.CELLS}
    parser = argparse.ArgumentParser(
        prog="make bench", description="What forwarding costs, beside nginx, HAProxy and a byte relay.",
        epilog="cells: " + "; ".join("%s: %s" % (c.name, c.title) for c in cells.CELLS),
    )  # fmt: skip
    parser.add_argument("--cells", default="", help="comma-separated; all if empty")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each cell (default 5)")
    parser.add_argument("--seconds", type=int, default=2, help="time of one run in a round (default 2)")
    parser.add_argument("--json", metavar="FILE", help="write everything that was measured to FILE")
    options = parser.parse_args()
    names = [n for n in options.cells.split(",") if n] or list(known)
    for n in names:
        if n not in known:
            parser.error("no cell %r; there are: %s" % (n, ", ".join(known)))
    if options.rounds < 1 or options.seconds < 1:
        parser.error("rounds and seconds are at least 1")
    options.cells = [known[n] for n in names]
    options.command = "make bench CELLS=%s ROUNDS=%d SECONDS=%d" % (shlex.quote(",".join(names)), options.rounds, options.seconds)
    return options


def _raise_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES:
        raise RuntimeError("only %d open files are allowed, %d are needed: ulimit -n %d" % (hard, FILES, FILES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(session.run(main))
