"""Memory of idle keep-alive connections: what the proxy's resident memory grows
by when many clients have asked once and stay."""

import contextlib
import time

from e2e.bench import procfs, targets
from e2e.bench.options import Options
from e2e.bench.proxies import Proxy
from e2e.bench.report import Finding
from e2e.bench.stage import Stage
from e2e.bench.targets import OURS
from e2e.harness import Client

CONNECTIONS = 5000
# Requests before, so that what is needed once is there.
WARM_UP = 200


class Idle:
    name = "idle"
    title = "memory of %d idle keep-alive connections" % CONNECTIONS

    def measure(self, options: Options) -> Finding:
        f = Finding(self.name, self.title, ["KB/connection", "MB before", "after"], data={})
        with Stage(options.kinds) as stage:
            for name, proxy in stage.proxies.items():
                before, after, alive = _measure(proxy)
                if alive < CONNECTIONS:
                    f.errors[name] = "%d of %d connections were closed" % (CONNECTIONS - alive, CONNECTIONS)
                    continue
                each = (after - before) / 1024 / CONNECTIONS
                f.rows[name] = ["%.2f" % each, "%.1f" % (before / 1e6), "%.1f" % (after / 1e6)]
                f.data[name] = {"before": before, "after": after}
                if name == OURS:
                    f.verdicts.append(targets.at_most("KB per idle keep-alive connection", each, targets.IDLE_KB))
        return f


def _measure(proxy: Proxy) -> tuple[int, int, int]:
    """Resident bytes before and after, and the connections that still work."""

    def ask(client: Client) -> bool:
        return client.request("/bench").status == 200

    with Client(proxy.port) as c:
        for _ in range(WARM_UP):
            ask(c)
    with contextlib.ExitStack() as stack:
        before = settled(proxy)
        clients = [stack.enter_context(Client(proxy.port)) for _ in range(CONNECTIONS)]
        for c in clients:
            ask(c)
        after = settled(proxy)
        alive = 0
        for c in clients:
            with contextlib.suppress(ConnectionError, AssertionError, OSError):
                alive += ask(c)
    return before, after, alive


def settled(proxy: Proxy, still: float = 1.0, within: float = 15.0) -> int:
    """Resident bytes once they have not changed for a while."""
    last, since = procfs.memory(proxy.pid), time.monotonic()
    deadline = since + within
    while time.monotonic() < min(since + still, deadline):
        time.sleep(0.1)
        now = procfs.memory(proxy.pid)
        if now != last:
            last, since = now, time.monotonic()
    return last
