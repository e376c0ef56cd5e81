"""Runs wrk and reads what it prints. A closed loop: each connection sends its
next request when the answer to the last one is there."""

import dataclasses
import pathlib
import re
import subprocess

from e2e.bench import children


@dataclasses.dataclass
class Result:
    """Latencies are in microseconds."""

    requests: int
    seconds: float
    p50: float
    p99: float
    # What went wrong, as wrk says it; empty when nothing did.
    errors: str = ""


def run(
    url: str, seconds: int, connections: int, cpus: frozenset[int], fields: list[str] = [], script: pathlib.Path | None = None
) -> Result:
    argv = ["wrk", "-t1", "-c%d" % connections, "-d%ds" % seconds, "--timeout", "10s", "--latency"]
    for f in fields:
        argv += ["-H", f]
    if script:
        argv += ["-s", str(script)]
    with subprocess.Popen(
        [*argv, url], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **children.how(cpus)
    ) as p:
        try:
            out, _ = p.communicate(timeout=seconds + 30)
        except BaseException:
            p.kill()
            raise
    if p.returncode != 0:
        raise RuntimeError("wrk ended with status %d: %s" % (p.returncode, out.strip()))
    return parse(out)


def post_script(path: pathlib.Path, size: int) -> pathlib.Path:
    """Makes every request a POST of this many bytes."""
    path.write_text('wrk.method = "POST"\nwrk.body = string.rep("x", %d)\n' % size)
    return path


def parse(out: str) -> Result:
    """The result that wrk printed."""
    total = re.search(r"(\d+) requests in ([\d.]+\w+),", out)
    if total is None:
        raise ValueError("not the output of wrk: %r" % out)
    errors = [line.strip() for line in out.splitlines() if re.match(r"\s*(Socket errors|Non-2xx or 3xx responses):", line)]
    return Result(
        requests=int(total[1]),
        seconds=micros(total[2]) / 1e6,
        p50=_percentile(out, "50"),
        p99=_percentile(out, "99"),
        errors="; ".join(errors),
    )


def _percentile(out: str, which: str) -> float:
    found = re.search(r"^\s+%s%%\s+([\d.]+\w+)$" % which, out, re.MULTILINE)
    return micros(found[1]) if found else 0.0


_UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6, "h": 3600e6}


def micros(text: str) -> float:
    """Microseconds of wrk's 12.3us, 4.5ms, 6.7s, 8.9m."""
    found = re.fullmatch(r"([\d.]+)([a-z]+)", text)
    if found is None or found[2] not in _UNITS:
        raise ValueError("not a time of wrk: %r" % text)
    return float(found[1]) * _UNITS[found[2]]
