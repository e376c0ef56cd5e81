"""How many requests of an endpoint are in flight, how many wait, how many come in a time."""

import threading
import time

from e2e.harness import Client, Scenario, eventually, get
from e2e.harness.client import head
from e2e.harness.origin import answer
from e2e.harness.ports import Reservation


class Slow:
    """A handler that answers when it is told to, and knows how many requests it has at
    once."""

    def __init__(self, seconds: float | None = None):
        self.seconds = seconds  # None: when go is released
        self.go = threading.Semaphore(0)
        self.lock = threading.Lock()
        self.now = self.most = 0
        self.order: list[str] = []

    def __call__(self, origin, request, connection):
        with self.lock:
            self.order.append(request.target)
            self.now += 1
            self.most = max(self.most, self.now)
        connection.read_body(request)
        if self.seconds is None:
            self.go.acquire()
        else:
            time.sleep(self.seconds)
        with self.lock:
            self.now -= 1
        answer(connection, origin.name.encode())


class Limits(Scenario):
    def limited(self, settings: str, *pool: str, more: str = "") -> str:
        lines = ["port: %d" % self.port, "endpoints:", "- from: /*", "  name: e"]
        lines += ["  " + s.strip() for s in settings.strip().splitlines()]
        return "\n".join(lines + ["  pool:"] + ["  - " + b for b in pool]) + "\n" + more

    def ask(self, path: str) -> Client:
        """Sends a request and does not wait for the response."""
        c = Client(self.port)
        self.addCleanup(c.close)
        c.send(head("GET", path, (), None, "test.example"))
        return c

    def wait_queued(self, dp, n: int) -> None:
        eventually(lambda: dp.metrics().value("dataplane_requests_queued", endpoint="e") == n, "%d wait" % n)

    def refused(self, dp, reason: str) -> float:
        return dp.metrics().value("dataplane_requests_refused_total", endpoint="e", reason=reason)

    def test_never_more_are_in_flight_than_may_be(self):
        slow = Slow(0.01)
        a = self.origin("a", slow)
        _, (dp,) = self.fleet(self.limited("maxRequests: 2\nqueue: {size: 50, timeout: 20s}", a.url), flags=["--threads", "2"])
        statuses = []

        def client():
            with Client(self.port) as c:
                for _ in range(10):
                    statuses.append(c.request("/x").status)

        threads = [threading.Thread(target=client) for _ in range(20)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual([200] * 200, statuses)
        self.assertEqual(2, slow.most)
        self.wait_queued(dp, 0)
        eventually(lambda: dp.metrics().value("dataplane_requests_in_flight", endpoint="e") == 0, "none is in flight")
        self.say("200 requests of 20 clients, 2 may be in flight: %d answered, at most %d at once" % (len(statuses), slow.most))

    def test_who_waits_is_served_in_order(self):
        slow = Slow()
        a = self.origin("a", slow)
        _, (dp,) = self.fleet(self.limited("maxRequests: 1\nqueue: {size: 8, timeout: 20s}", a.url), flags=["--threads", "2"])
        clients = [self.ask("/0")]
        eventually(lambda: slow.now == 1, "the first is at the backend")
        for i in range(1, 9):
            clients.append(self.ask("/%d" % i))
            self.wait_queued(dp, i)
        full = get(self.port, "/full")
        self.assertEqual((503, "1"), (full.status, full.get("Retry-After")))
        self.assertEqual(1, self.refused(dp, "queue_full"))
        clients[3].close()
        self.wait_queued(dp, 7)
        for i in (0, 1, 2, 4, 5, 6, 7, 8):
            slow.go.release()
            self.assertEqual(200, clients[i].response().status)
        self.assertEqual(["/%d" % i for i in (0, 1, 2, 4, 5, 6, 7, 8)], slow.order)
        self.assertEqual(1, slow.most)
        self.say("8 waited, one of them left: 7 served in order, one more refused")

    def test_who_waits_too_long_is_refused(self):
        slow = Slow()
        a = self.origin("a", slow)
        cp, (dp,) = self.fleet(self.limited("maxRequests: 1\nqueue: {size: 8, timeout: 100ms}", a.url))
        first = self.ask("/first")
        eventually(lambda: slow.now == 1, "the first is at the backend")
        with Client(self.port) as c:
            r = c.request("/late")
            self.assertEqual((503, "1", False), (r.status, r.get("Retry-After"), r.closes))
            self.change(cp, self.limited("maxRequests: 1", a.url), dp)
            self.assertEqual(503, c.request("/no-queue").status)
        self.assertEqual((1, 1), (self.refused(dp, "queue_timeout"), self.refused(dp, "max_requests")))
        slow.go.release()
        self.assertEqual(200, first.response().status)
        self.assertEqual(["/first"], slow.order)

    def test_a_raised_limit_lets_in_who_waits(self):
        slow = Slow()
        a = self.origin("a", slow)
        cp, (dp,) = self.fleet(self.limited("maxRequests: 1\nqueue: {size: 8, timeout: 20s}", a.url), flags=["--threads", "2"])
        clients = [self.ask("/%d" % i) for i in range(5)]
        self.wait_queued(dp, 4)
        self.change(cp, self.limited("maxRequests: 3\nqueue: {size: 8, timeout: 20s}", a.url), dp)
        eventually(lambda: slow.now == 3, "three are at the backend")
        self.wait_queued(dp, 2)
        for _ in clients:
            slow.go.release()
        self.assertEqual([200] * 5, [c.response().status for c in clients])
        self.assertEqual(3, slow.most)

    def test_backends_have_limits_of_their_own(self):
        one, two = Slow(), Slow()
        a, b = self.origin("a", one), self.origin("b", two)
        pool = ["{url: %s, maxRequests: 1}" % a.url, "{url: %s, maxRequests: 2}" % b.url]
        # Another endpoint has one of them as well; what it sends there counts.
        more = "- {from: /other, name: other, pool: [%s]}\n" % b.url
        cp, (dp,) = self.fleet(self.limited("queue: {size: 8, timeout: 20s}", *pool, more=more), flags=["--threads", "2"])
        other = self.ask("/other")
        eventually(lambda: two.now == 1, "the other's is at its backend")
        clients = [self.ask("/%d" % i) for i in range(5)]
        self.wait_queued(dp, 3)
        eventually(lambda: (one.now, two.now) == (1, 2), "the others are at the backends")
        for _ in range(6):
            one.go.release()
            two.go.release()
        self.assertEqual([200] * 6, [c.response().status for c in [other] + clients])
        self.assertEqual((1, 2), (one.most, two.most))
        # Without a queue nobody waits for a backend.
        a.handler, b.handler = one, two = Slow(), Slow()
        self.change(cp, self.limited("", *pool, more=more), dp)
        clients = [self.ask("/%d" % i) for i in range(3)]
        eventually(lambda: (one.now, two.now) == (1, 2), "the backends are full")
        self.assertEqual(503, get(self.port, "/full").status)
        self.assertEqual(1, self.refused(dp, "backends_full"))
        for slow in (one, two, two):
            slow.go.release()
        self.assertEqual([200] * 3, [c.response().status for c in clients])
        self.say("backends with 1 and 2: at most %d and %d at once" % (one.most, two.most))

    def pour(self, port: int, seconds: float, c: Client | None = None) -> tuple[int, int, float, float]:
        """Sends requests for some time, and on until one is refused. Returns how many
        were allowed and refused, and the shortest and the longest time that it can have
        been for the data plane."""
        allowed = refused = 0
        with c or Client(port) as c:
            start = time.monotonic()
            first = None
            while True:
                sent = time.monotonic()
                r = c.request("/x")
                first = first or time.monotonic()
                if r.status == 200:
                    allowed += 1
                else:
                    self.assertEqual((429, "1"), (r.status, r.get("Retry-After")))
                    refused += 1
                    if sent - start > seconds:
                        return allowed, refused, sent - first, time.monotonic() - start

    def test_a_rate_is_a_burst_and_then_steady(self):
        a = self.origin("a")
        _, (dp,) = self.fleet(self.limited("rateLimit: {requests: 20, per: 1s, burst: 40}", a.url), flags=["--threads", "2"])
        allowed, refused, least, most = self.pour(self.port, 2)
        self.assertGreaterEqual(allowed, 40 + int(20 * least))
        self.assertLessEqual(allowed, 40 + int(20 * most))
        self.assertEqual(allowed, a.count())
        self.assertEqual(refused, self.refused(dp, "rate_limit"))
        self.say("burst of 40, then 20/s: %d allowed and %d refused in %.2f s" % (allowed, refused, most))

    def test_each_value_of_a_header_has_a_rate(self):
        a = self.origin("a")
        settings = 'rateLimit: {requests: 1, per: 1h, burst: 3, key: "header:X-Key"}'
        cp, (dp,) = self.fleet(self.limited(settings, a.url), flags=["--threads", "2"])

        def count(*fields) -> int:
            statuses = [get(self.port, "/x", fields=fields).status for _ in range(6)]
            self.assertLessEqual(set(statuses), {200, 429})
            return statuses.count(200)

        self.assertEqual([3, 3, 3], [count(("X-Key", "one")), count(("x-key", "two")), count()])
        self.assertEqual([0, 0, 0], [count(("X-Key", "one")), count(("x-key", "two")), count()])
        # What has been used stays used as long as the limit is the same.
        self.change(cp, self.limited(settings, a.url, more="- {from: /new, pool: [%s]}\n" % a.url), dp)
        self.assertEqual([0, 3], [count(("X-Key", "one")), count(("X-Key", "three"))])
        self.change(cp, self.limited(settings.replace("burst: 3", "burst: 2"), a.url), dp)
        self.assertEqual(2, count(("X-Key", "one")))
        self.assertEqual(14, a.count())

    def test_data_planes_share_a_rate(self):
        a = self.origin("a", record=False)
        cp = self.control_plane(self.limited("rateLimit: {requests: 100, per: 1s, burst: 20}", a.url))
        dps, ports = [], []
        for name in ("dp1", "dp2"):
            own = Reservation()
            self.addCleanup(own.release)
            ports.append(own.port)
            dps.append(self.data_plane(name, cp, flags=["--port", str(own.port), "--threads", "2"]))
        self.wait_applied(cp, dps)

        def rate(port: int) -> float:
            self.pour(port, 0)  # the burst
            allowed, _, _, most = self.pour(port, 0.5)
            # No more than in that time, the little that has been left, and rounding.
            return (allowed - 2) / most

        shares = eventually(lambda: (r := [rate(p) for p in ports]) and max(r) <= 50 and r, "each allows half")
        dps[1].terminate()
        dps[1].wait(15)
        left = time.monotonic()
        alone = eventually(lambda: (r := rate(ports[0])) > 60 and r, "the other allows all")
        self.assertLessEqual(alone, 100)
        self.say("of 100/s two data planes allow %.0f and %.0f; one that is left %.0f, after %.1f s" % (*shares, alone, time.monotonic() - left))
