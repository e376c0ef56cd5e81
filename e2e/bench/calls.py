"""System calls per request, counted by strace in a run of its own: it makes each
call so slow that the proxy is always behind, so this is the number at
saturation."""

import dataclasses
import pathlib
import re
import shutil
import signal
import subprocess

from e2e.bench import children, procfs, targets, wrk
from e2e.bench.cost import quietly
from e2e.bench.options import Options
from e2e.bench.proxies import Proxy
from e2e.bench.report import Finding
from e2e.bench.stage import Stage
from e2e.bench.targets import OURS
from e2e.harness import eventually

# Calls that are named one by one.
NAMED = 6
# Seconds, so that opening 64 connections and what goes by the clock weigh little.
LEAST = 4


class Calls:
    name = "calls"
    title = "system calls per request, GET 1 KB, c=64"

    def measure(self, options: Options) -> Finding:
        f = Finding(self.name, self.title, ["calls/request", "of these"], data={})
        if shutil.which("strace") is None:
            f.notes.append("not measured: there is no strace")
            return f
        with Stage(options.kinds) as stage:
            for name, proxy in stage.proxies.items():
                runs: list[_Run] = []
                seconds = max(options.seconds, LEAST)
                note = quietly(lambda: stage.meter(proxy), lambda: runs.append(_count(stage, proxy, seconds)), attempts=2)
                if note:
                    f.notes.append("%s: %s" % (name, note))
                run = runs[-1]
                if run.errors or not run.requests:
                    f.errors[name] = run.errors or "no request was answered"
                    continue
                calls = {call: n / run.requests for call, n in sorted(run.counts.items(), key=lambda kv: -kv[1])}
                total = sum(calls.values())
                named = ", ".join("%s %.2f" % kv for kv in list(calls.items())[:NAMED])
                f.rows[name] = ["%.2f" % total, named]
                f.data[name] = calls
                if name == OURS:
                    f.verdicts.append(targets.at_most("system calls per request at c=64" + (" (disturbed)" if note else ""), total, targets.SYSTEM_CALLS))
        return f


@dataclasses.dataclass
class _Run:
    """Calls by name, requests, and what went wrong."""

    counts: dict[str, int]
    requests: int
    errors: str


def _count(stage: Stage, proxy: Proxy, seconds: int) -> _Run:
    url = "http://127.0.0.1:%d/bench" % proxy.port
    wrk.run(url, 1, 64, stage.other_cpus)
    report = stage.folder / ("strace-" + proxy.folder.name)
    pids = procfs.family(proxy.pid)
    argv = ["strace", "-c", "-f", "-o", str(report)]
    for pid in pids:
        argv += ["-p", str(pid)]
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **children.how(stage.other_cpus)
    ) as strace:
        try:
            eventually(lambda: all(_traced(pid) for pid in pids), "strace is attached to %s" % proxy.name)
            result = wrk.run(url, seconds, 64, stage.other_cpus)
            # It detaches, and then reports.
            strace.send_signal(signal.SIGINT)
            strace.wait(20)
        except BaseException:
            strace.kill()
            raise
    return _Run(parse(report.read_text()), result.requests, result.errors)


def _traced(pid: int) -> bool:
    """Every thread is."""
    tasks = pathlib.Path("/proc/%d/task" % pid).iterdir()
    return all("TracerPid:\t0" not in (t / "status").read_text() for t in tasks)


def parse(report: str) -> dict[str, int]:
    """Calls by name, of the table of strace -c."""
    counts = {}
    for line in report.splitlines():
        # % time, seconds, usecs/call, calls, perhaps errors, name
        found = re.match(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", line)
        if found and found[2] != "total":
            counts[found[2]] = counts.get(found[2], 0) + int(found[1])
    return counts
