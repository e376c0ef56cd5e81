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
from collections.abc import Callable, Iterable

from e2e.harness.client import Client, ConnectionLost
from e2e.harness.origin import Origin


# A data plane that drains may close a connection on which nothing has come for
# this many seconds, without a word; clients look before they use such a one.
RESTED = 0.9


class Load:
    """keepalive threads hold one connection each as long as the proxy does;
    fresh threads open a new connection for each request. Each pauses for so many
    seconds after a request, where the load is not to take the machine away from
    what it is about."""

    def __init__(self, port: int, expect: dict[str, Iterable[str]], keepalive: int = 2, fresh: int = 1, pause: float = 0.0):
        self.port = port
        self.pause = pause
        self._stop = threading.Event()
        self._lock = threading.Lock()
        # Under _lock.
        self._expect = {path: frozenset(names) for path, names in expect.items()}
        self.failures: list[str] = []
        self.answers: collections.Counter[str] = collections.Counter()
        self.sent_ids: set[str] = set()
        # How many requests each thread has begun.
        self._begun: collections.Counter[str] = collections.Counter()
        # Seconds that a request took, with the time to connect when it needed that.
        self.slowest = 0.0
        self.reconnects = 0
        # Keep-alive connections that have been answered on and are not closed.
        self.held = 0
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

    def under_way(self) -> Callable[[], bool]:
        """Tells whether a request still goes on that does so now: each thread has one
        at a time."""
        with self._lock:
            begun = self._begun.copy()

        def go_on() -> bool:
            with self._lock:
                return any(self._begun[thread] == n for thread, n in begun.items())

        return go_on

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
                self._begun[thread] += 1
            yield "%s-%d" % (thread, i), path, allowed
            if self.pause:
                self._stop.wait(self.pause)

    def _keepalive(self, thread: str) -> None:
        client, held, sent = None, False, 0.0

        def hold(now: bool) -> None:
            nonlocal held
            with self._lock:
                self.held += now - held
                held = now

        for id_, path, allowed in self._requests(thread):
            began = time.monotonic()
            silence = began - sent if held else 0.0
            if silence > RESTED and client.ended():
                # This machine was too busy to let the client ask in time.
                client.close()
                client, silence = None, 0.0
                with self._lock:
                    self.reconnects += 1
            sent = began
            try:
                if client is None:
                    client = Client(self.port)
                keep = self._one(client, began, id_, path, allowed, [])
            except (ConnectionLost, AssertionError) as e:
                self._failed(id_, path, "%s; %.0f ms after the request before" % (e, 1000 * silence))
                keep = False
            hold(keep)
            if not keep and client is not None:
                client.close()
                client = None
                with self._lock:
                    self.reconnects += 1
        if client is not None:
            client.close()
        hold(False)

    def _fresh(self, thread: str) -> None:
        for id_, path, allowed in self._requests(thread):
            began = time.monotonic()
            try:
                with Client(self.port) as client:
                    self._one(client, began, id_, path, allowed, [("Connection", "close")])
            except (ConnectionLost, AssertionError) as e:
                self._failed(id_, path, e)

    def _one(
        self, client: Client, began: float, id_: str, path: str, allowed: frozenset[str], fields: list[tuple[str, str]]
    ) -> bool:
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

    def _failed(self, id_: str, path: str, error: Exception | str) -> None:
        with self._lock:
            self.failures.append("%s %s: %s" % (id_, path, error))
