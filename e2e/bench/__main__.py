"""python3 -m e2e.bench: the command line of `make bench`."""

import argparse
import dataclasses
import json
import pathlib
import resource
import shlex
import sys
import time
import traceback

from e2e.bench import catalogue, commandline, machine, packages, proxies, report, session
from e2e.bench.catalogue import Measurement
from e2e.bench.options import Options
from e2e.bench.report import Finding
from e2e.harness.processes import BUILD

# Open files that a proxy may need for the clients of the largest cell.
FILES = 18000


def main(arguments: argparse.Namespace, chosen: list[Measurement]) -> int:
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
    started = time.monotonic()
    head = machine.describe(arguments.command)
    print(*head, "", sep="\n")
    findings = []
    for measurement in chosen:
        f = measure(measurement, participants(measurement, missing, arguments), arguments)
        findings.append(f)
        print(report.figures(f), end="\n\n")
    print(*head, sep="\n")
    print("took      %.0f s, %d rounds of %d s for each cell\n" % (time.monotonic() - started, arguments.rounds, arguments.seconds))
    print("Targets (× is CPU time per request of ours to that of the better of nginx and HAProxy):\n")
    print(report.verdicts(findings))
    if arguments.json:
        text = json.dumps({"head": head, "findings": [dataclasses.asdict(f) for f in findings]})
        # The latency of a lost request is infinite, which JSON cannot say.
        pathlib.Path(arguments.json).write_text(text.replace("Infinity", "null"))
    failed = [f.name for f in findings if f.errors]
    if failed:
        print("\nfailed: %s" % ", ".join(failed))
    return 1 if failed else 0


def measure(measurement: Measurement, kinds: list[type[proxies.Proxy]], arguments: argparse.Namespace) -> Finding:
    """What cannot be run is a failure; the others are still run."""

    def tell(line: str) -> None:
        if sys.stderr.isatty():
            print("  %s %s" % (measurement.name, line), file=sys.stderr)

    try:
        return measurement.measure(Options(arguments.rounds, arguments.seconds, kinds, tell))
    except Exception as e:
        traceback.print_exc()
        return Finding(measurement.name, measurement.title, [], errors={"all": "%s: %s" % (type(e).__name__, e)})


def participants(measurement: Measurement, missing: list[str], arguments: argparse.Namespace) -> list[type[proxies.Proxy]]:
    """Who is installed, asked for, and has something to say there."""
    wanted = [n for n in arguments.proxies.split(",") if n]
    proxies.Ours.flags = shlex.split(arguments.flags)
    kinds = list(proxies.ALL)
    if arguments.against:
        proxies.Before.binary = pathlib.Path(arguments.against) / "dataplane"
        kinds.insert(1, proxies.Before)
    return [k for k in kinds if k.needs not in missing and k.fits(measurement.name) and (not wanted or k.name in wanted)]


def parse() -> tuple[argparse.Namespace, list[Measurement]]:
    parser = commandline.parser("make bench", "What forwarding costs, beside nginx, HAProxy and a byte relay.", catalogue.ALL)
    parser.add_argument("--proxies", default="", help="whom to measure, comma-separated; all if empty")
    parser.add_argument("--rounds", type=int, default=10, help="rounds of each cell (default 10)")
    parser.add_argument("--seconds", type=int, default=1, help="time of one run in a round (default 1)")
    parser.add_argument("--flags", default="", help="further flags of our data plane")
    parser.add_argument("--against", metavar="DIR", help='also measure the data plane of another build, as "before"')
    arguments = parser.parse_args()
    chosen = commandline.chosen(parser, arguments.cells, catalogue.ALL)
    if arguments.rounds < 1 or arguments.seconds < 1:
        parser.error("rounds and seconds are at least 1")
    arguments.command = "make bench%s ROUNDS=%d SECONDS=%d" % (
        " CELLS=" + arguments.cells if arguments.cells else "", arguments.rounds, arguments.seconds,
    )  # fmt: skip
    more = ["--%s=%s" % (n, shlex.quote(v)) for n in ("proxies", "flags", "against") if (v := getattr(arguments, n))]
    if more:
        arguments.command += " BENCHFLAGS=" + shlex.quote(" ".join(more))
    return arguments, chosen


def _raise_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES:
        raise RuntimeError("only %d open files are allowed, %d are needed: ulimit -n %d" % (hard, FILES, FILES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    parsed = parse()
    sys.exit(session.run(lambda: main(*parsed)))
