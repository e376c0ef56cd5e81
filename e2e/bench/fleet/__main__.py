"""python3 -m e2e.bench.fleet: the command line of `make bench-fleet`."""

import argparse
import dataclasses
import json
import pathlib
import resource
import sys
import time
import traceback

from e2e.bench import commandline, machine, report, session
from e2e.bench.fleet import cells
from e2e.bench.fleet.cells import Measurement
from e2e.bench.report import Finding
from e2e.harness.processes import BUILD

# Open files of a program beside the connections of data planes.
SPARE_FILES = 200


def main(arguments: argparse.Namespace, chosen: list[Measurement]) -> int:
    # The lines come as they are found, also into a file.
    sys.stdout.reconfigure(line_buffering=True)
    for program in ("controlplane", "bench/dataplanes"):
        if not (BUILD / program).exists():
            print("there is no %s: run make bench-fleet" % (BUILD / program), file=sys.stderr)
            return 1
    try:
        _raise_limit(max(m.planes for m in chosen) + SPARE_FILES)
    except RuntimeError as e:
        print("make bench-fleet: %s" % e, file=sys.stderr)
        return 1
    started = time.monotonic()
    head = machine.describe(arguments.command, [[str(BUILD / "controlplane"), "--version"]])
    print(*head, "", sep="\n")
    findings = []
    for measurement in chosen:
        f = measure(measurement)
        findings.append(f)
        print(report.figures(f), end="\n\n")
    print(*head, sep="\n")
    print("took      %.0f s; control plane and simulated data planes share the machine\n" % (time.monotonic() - started))
    print("Targets:\n")
    print(report.verdicts(findings))
    if arguments.json:
        text = json.dumps({"head": head, "findings": [dataclasses.asdict(f) for f in findings]})
        pathlib.Path(arguments.json).write_text(text)
    failed = [f.name for f in findings if f.errors]
    if failed:
        print("\nfailed: %s" % ", ".join(failed))
    return 1 if failed else 0


def measure(measurement: Measurement) -> Finding:
    """What cannot be run is a failure; the others are still run."""

    def tell(line: str) -> None:
        if sys.stderr.isatty():
            print("  %s %s" % (measurement.name, line), file=sys.stderr)

    try:
        return measurement.measure(tell)
    except Exception as e:
        traceback.print_exc()
        return Finding(measurement.name, measurement.title, [], errors={"all": "%s: %s" % (type(e).__name__, e)})


def parse() -> tuple[argparse.Namespace, list[Measurement]]:
    parser = commandline.parser("make bench-fleet", "What a control plane costs that serves many data planes.", cells.ALL)
    arguments = parser.parse_args()
    arguments.command = "make bench-fleet" + (" CELLS=" + arguments.cells if arguments.cells else "")
    return arguments, commandline.chosen(parser, arguments.cells, cells.ALL)


def _raise_limit(needed: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise RuntimeError("only %d open files are allowed, %d are needed: ulimit -Hn %d, or fewer CELLS" % (hard, needed, needed))
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    parsed = parse()
    sys.exit(session.run(lambda: main(*parsed)))
