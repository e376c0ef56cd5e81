"""The kinds of work that are measured in rounds: what a user of `CELLS=` names."""

import dataclasses
from collections.abc import Callable

from e2e.bench import wrk
from e2e.bench.openloop import OpenLoop
from e2e.bench.proxies import Proxy
from e2e.bench.stage import Stage


@dataclasses.dataclass
class Outcome:
    """What the clients saw. Latencies are in microseconds."""

    requests: int
    seconds: float
    p50: float
    p99: float
    errors: str = ""


@dataclasses.dataclass(frozen=True)
class Cell:
    name: str
    title: str
    # Makes the load for so many seconds.
    load: Callable[[Stage, Proxy, int], Outcome]
    threads: int = 1
    # Bytes of a response, where they and not the requests are what counts.
    bulk: int = 0


def _closed(connections: int, path: str = "/bench", fields: list[str] = [], post: int = 0):
    def load(stage: Stage, proxy: Proxy, seconds: int) -> Outcome:
        script = wrk.post_script(stage.folder / "post.lua", post) if post else None
        r = wrk.run("http://127.0.0.1:%d%s" % (proxy.port, path), seconds, connections, stage.other_cpus, fields, script)
        return Outcome(r.requests, r.seconds, r.p50, r.p99, r.errors)

    return load


def _constant(rate: int, connections: int):
    def load(stage: Stage, proxy: Proxy, seconds: int) -> Outcome:
        with OpenLoop("http://127.0.0.1:%d/bench" % proxy.port, seconds, rate, connections, stage.other_cpus) as generator:
            r = generator.result()
        errors = ", ".join("%d × %s" % (n, reason) for reason, n in r["failures"].items())
        return Outcome(r["ok"], r["seconds"], r["p50_us"], r["p99_us"], errors)

    return load


CELLS = [
    Cell("c1", "GET 1 KB, keep-alive, c=1", _closed(1)),
    Cell("c64", "GET 1 KB, keep-alive, c=64", _closed(64)),
    Cell("c256", "GET 1 KB, keep-alive, c=256", _closed(256)),
    Cell("c1000", "GET 1 KB, keep-alive, c=1000", _closed(1000)),
    Cell("2cores", "GET 1 KB, keep-alive, two cores, c=64", _closed(64), threads=2),
    Cell("close", "new connection per request, c=64", _closed(64, fields=["Connection: close"])),
    Cell("post16k", "POST 16 KB, c=64", _closed(64, post=16 << 10)),
    Cell("64k", "64 KB responses, c=64", _closed(64, "/64k")),
    Cell("1m", "1 MB responses, c=16", _closed(16, "/1m"), bulk=1 << 20),
    Cell("rate", "constant rate 8,000/s, c=64", _constant(8000, 64)),
]
