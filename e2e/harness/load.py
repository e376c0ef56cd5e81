"""Continuous load that counts every request that went wrong.

Each request carries an id of its own. It is right when the answer is a complete
200 that echoes the id and comes from a backend that may answer at that moment.
Everything else is written down; nothing is retried. Afterwards the origins tell
whether a request reached them twice.
"""

import collections
import itertools
import threading
import time
from collections.abc import Iterable

from e2e.harness.client import Client, ConnectionLost
from e2e.harness.origin import Origin


class Load:
    """keepalive threads hold one connection each as long as the proxy does;
    fresh threads open a new connection for each request."""

    def __init__(self, port: int, expect: dict[str, Iterable[str]], keepalive: int = 2, fresh: int = 1):
        self.port = port
        self._stop = threading.Event()
        self._lock = threading.Lock()
        # Under _lock.
        self._expect = {path: frozenset(names) for path, names in expect.items()}
        self.failures: list[str] = []
        self.answers: collections.Counter[str] = collections.Counter()
        self.sent_ids: set[str] = set()
        self.slowest = 0.0
        self.reconnects = 0
        self._threads = [
            threading.Thread(target=self._keepalive if kind == "k" else self._fresh, args=("%s%d" % (kind, i),), daemon=True)
            for kind, n in (("k", keepalive), ("f", fresh))
            for i in range(n)
        ]

    def __enter__(self) -> "Load":
        for t in self._threads:
            t.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        for t in self._threads:
            t.join(30)
            if t.is_alive():
                with self._lock:
                    self.failures.append("%s: a request was never answered" % t.name)

    def expect(self, path: str, *names: str) -> None:
        """From now on these backends may answer path. A request that is under
        way when this changes may be answered by either set."""
        with self._lock:
            self._expect[path] = frozenset(names)

    def total(self) -> int:
        with self._lock:
            return sum(self.answers.values())

    def answered(self, name: str) -> int:
        with self._lock:
            return self.answers[name]

    def duplicates(self, *origins: Origin) -> list[str]:
        """Ids that were not seen by exactly one origin exactly once."""
        seen: collections.Counter[str] = collections.Counter()
        for o in origins:
            with o._lock:
                seen.update(o.ids)
        return ["%s: %d times" % (i, seen[i]) for i in sorted(self.sent_ids) if seen[i] != 1]

    # One thread each below.

    def _requests(self, thread: str):
        for i in itertools.count():
            if self._stop.is_set():
                return
            with self._lock:
                paths = list(self._expect)
                path = paths[i % len(paths)]
                allowed = self._expect[path]
            yield "%s-%d" % (thread, i), path, allowed

    def _keepalive(self, thread: str) -> None:
        client = None
        for id_, path, allowed in self._requests(thread):
            try:
                if client is None:
                    client = Client(self.port)
                keep = self._one(client, id_, path, allowed, [])
            except (ConnectionLost, AssertionError) as e:
                self._failed(id_, path, e)
                keep = False
            if not keep and client is not None:
                client.close()
                client = None
                with self._lock:
                    self.reconnects += 1
        if client is not None:
            client.close()

    def _fresh(self, thread: str) -> None:
        for id_, path, allowed in self._requests(thread):
            try:
                with Client(self.port) as client:
                    self._one(client, id_, path, allowed, [("Connection", "close")])
            except (ConnectionLost, AssertionError) as e:
                self._failed(id_, path, e)

    def _one(self, client: Client, id_: str, path: str, allowed: frozenset[str], fields: list[tuple[str, str]]) -> bool:
        began = time.monotonic()
        r = client.request(path, fields=[("X-Request-Id", id_), *fields])
        took = time.monotonic() - began
        with self._lock:
            allowed |= self._expect.get(path, frozenset())
            self.slowest = max(self.slowest, took)
            if r.status == 200 and r.complete and r.get("X-Request-Id") == id_ and r.text in allowed:
                self.answers[r.text] += 1
                self.sent_ids.add(id_)
            else:
                self.failures.append(
                    "%s %s: status %d, complete %s, id %s, from %r, allowed %s"
                    % (id_, path, r.status, r.complete, r.get("X-Request-Id"), r.text[:60], sorted(allowed))
                )
        return not r.closes

    def _failed(self, id_: str, path: str, error: Exception) -> None:
        with self._lock:
            self.failures.append("%s %s: %s" % (id_, path, error))
