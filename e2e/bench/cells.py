"""The kinds of work that are measured in rounds."""

import dataclasses
from collections.abc import Callable

from e2e.bench import wrk
from e2e.bench.openloop import OpenLoop
from e2e.bench.proxies import Proxy
from e2e.bench.rounds import Outcome
from e2e.bench.stage import Stage


@dataclasses.dataclass(frozen=True)
class Cell:
    name: str
    title: str
    # Makes the load for so many seconds.
    load: "Load"
    threads: int = 1
    # Bytes of a response, where they and not the requests are what counts.
    bulk: int = 0


Load = Callable[[Stage, Proxy, int], Outcome]


def closed(connections: int, path: str = "/bench", fields: list[str] = [], post: int = 0) -> Load:
    """A closed loop: each connection asks again when it has its answer."""

    def load(stage: Stage, proxy: Proxy, seconds: int) -> Outcome:
        script = wrk.post_script(stage.folder / "post.lua", post) if post else None
        r = wrk.run("http://127.0.0.1:%d%s" % (proxy.port, path), seconds, connections, stage.other_cpus, fields, script)
        return Outcome(r.requests, r.seconds, r.p50, r.p99, errors=r.errors)

    return load


def constant(rate: int, connections: int) -> Load:
    """An open loop: so many requests in a second, whatever comes back."""

    def load(stage: Stage, proxy: Proxy, seconds: int) -> Outcome:
        with OpenLoop("http://127.0.0.1:%d/bench" % proxy.port, seconds, rate, connections, stage.other_cpus) as generator:
            r = generator.result()
        errors = ", ".join("%d × %s" % (n, reason) for reason, n in r["failures"].items())
        return Outcome(r["ok"], r["seconds"], r["p50_us"], r["p99_us"], r["p999_us"], errors)

    return load


CELLS = [
    Cell("c1", "GET 1 KB, keep-alive, c=1", closed(1)),
    Cell("c64", "GET 1 KB, keep-alive, c=64", closed(64)),
    Cell("c256", "GET 1 KB, keep-alive, c=256", closed(256)),
    Cell("c1000", "GET 1 KB, keep-alive, c=1000", closed(1000)),
    Cell("2cores", "GET 1 KB, keep-alive, two cores, c=64", closed(64), threads=2),
    Cell("close", "new connection per request, c=64", closed(64, fields=["Connection: close"])),
    Cell("post16k", "POST 16 KB, c=64", closed(64, post=16 << 10)),
    Cell("64k", "64 KB responses, c=64", closed(64, "/64k")),
    Cell("1m", "1 MB responses, c=16", closed(16, "/1m"), bulk=1 << 20),
    Cell("rate", "constant rate 8,000/s, c=64", constant(8000, 64)),
]
