"""How a backend is chosen: policies, keys, cookies, backups, slow starts."""

import collections
import math
import urllib.request
from http.cookiejar import CookieJar

from e2e.harness import Client, Load, Scenario, eventually, get
from e2e.harness.origin import Connection, Origin, Request, answer
from e2e.harness.ports import Reservation

REQUESTS = 10_000
# Requests that are sent before the first of them has been answered.
AT_ONCE = 50
POLICIES = {
    "/roundrobin": "{policy: RoundRobin}",
    "/leastrequest": "{policy: LeastRequest}",
    "/random": "{policy: Random}",
    "/hash": '{policy: ConsistentHash, on: "header:X-User"}',
}


def only_the_name(origin: Origin, request: Request, connection: Connection) -> None:
    answer(connection, origin.name.encode())


class Ward:
    """Backends of which some are sick: then they fail their checks, and nothing else."""

    CHECK = "  healthCheck: {active: {path: /health, interval: 300ms, timeout: 300ms, healthyAfter: 1, unhealthyAfter: 2}}\n"

    def __init__(self):
        self.sick: frozenset[str] = frozenset()

    def handle(self, origin: Origin, request: Request, connection: Connection) -> None:
        failed = request.target == "/health" and origin.name in self.sick
        answer(connection, origin.name.encode(), status="500 Internal Server Error" if failed else "200 OK")


def ask(port: int, path: str, n: int, first: int = 0) -> list[str]:
    """Sends n requests on one connection, each for a user of its own, and returns who
    answered each."""
    answers = []
    with Client(port) as c:
        for batch in range(first, first + n, AT_ONCE):
            users = range(batch, min(batch + AT_ONCE, first + n))
            c.send(b"".join(b"GET %s HTTP/1.1\r\nHost: a\r\nX-User: user-%d\r\n\r\n" % (path.encode(), i) for i in users))
            for i in users:
                r = c.response()
                assert r.status == 200, r
                answers.append(r.text)
    return answers


class Balancing(Scenario):
    def balanced(self, pool, load_balancing: str, path: str = "/x", more: str = "") -> str:
        """A file with one endpoint."""
        return self.config({path: pool}) + "  loadBalancing: %s\n%s" % (load_balancing, more)

    def some(self, names: str) -> list[Origin]:
        return [self.origin(n, only_the_name, record=False) for n in names]

    def two_data_planes(self, config: str):
        """A fleet of two, each of which can be asked on a port of its own."""
        cp = self.control_plane(config)
        other = Reservation()
        self.addCleanup(other.release)
        dps = [self.data_plane("dp1", cp), self.data_plane("dp2", cp, flags=["--port", str(other.port)])]
        self.wait_applied(cp, dps)
        return cp, dps, (self.port, other.port)

    def assert_shares(self, counts: dict[str, int], weights: dict[str, int]) -> None:
        """What is drawn by lot: six and a half standard deviations off is less
        probable than 1e-10."""
        n, total = sum(counts.values()), sum(weights.values())
        for name, weight in weights.items():
            p = weight / total
            self.assertLess(abs(counts[name] - n * p), 6.5 * math.sqrt(n * p * (1 - p)) + 1, counts)

    def test_ten_thousand_requests_by_each_policy(self):
        weights = {"a": 5, "b": 3, "c": 2, "d": 0}
        pool = ["{url: %s, weight: %d}" % (o.url, weights[o.name]) for o in self.some("abcd")]
        lines = self.config({}).splitlines()
        for path, policy in POLICIES.items():
            lines += ["- from: " + path, "  loadBalancing: " + policy, "  pool:", *("  - " + b for b in pool)]
        self.fleet("\n".join(lines) + "\n")
        for path, policy in POLICIES.items():
            counts = collections.Counter(ask(self.port, path, REQUESTS))
            self.say("%s, weights 5, 3, 2, 0, %d requests: %s" % (policy, REQUESTS, dict(sorted(counts.items()))))
            self.assertEqual(0, counts["d"])
            if path == "/roundrobin":
                self.assertEqual({"a": 5000, "b": 3000, "c": 2000}, counts)
            self.assert_shares(counts, weights)

    def test_a_key_leads_to_one_backend_on_every_data_plane(self):
        origins = self.some("abcd")
        by = '{policy: ConsistentHash, on: "header:X-User"}'
        cp, dps, ports = self.two_data_planes(self.balanced(origins[:3], by))
        n = 2000
        before = ask(ports[0], "/x", n)
        self.assertEqual(before, ask(ports[1], "/x", n))
        self.assertEqual(before, ask(ports[0], "/x", n))
        self.assert_shares(collections.Counter(before), {"a": 1, "b": 1, "c": 1})

        # In another order, so that it is not the place in the pool that counts.
        self.change(cp, self.balanced([origins[3], *reversed(origins[:3])], by), *dps)
        after = ask(ports[0], "/x", n)
        self.assertEqual(after, ask(ports[1], "/x", n))
        moved = [(was, is_) for was, is_ in zip(before, after) if was != is_]
        astray = [m for m in moved if m[1] != "d"]
        self.say("ConsistentHash, a fourth backend: %d of %d keys move, %d of them between the other three" % (len(moved), n, len(astray)))
        self.assert_shares(collections.Counter(after), {"a": 1, "b": 1, "c": 1, "d": 1})
        self.assertLess(len(astray), n / 20)

    def test_requests_without_the_key_go_anywhere(self):
        self.fleet(self.balanced(self.some("abc"), '{policy: ConsistentHash, on: "header:X-Other"}'))
        self.assert_shares(collections.Counter(ask(self.port, "/x", 1000)), {"a": 1, "b": 1, "c": 1})

    def test_by_client_and_by_path(self):
        pool = self.some("abcd")
        lines = self.balanced(pool, "{policy: ConsistentHash, on: clientIP}").splitlines()
        lines += ["- from: /p/*", "  loadBalancing: {policy: ConsistentHash, on: path}", "  pool:", *("  - " + o.url for o in pool)]
        self.fleet("\n".join(lines) + "\n")
        self.assertEqual(1, len(set(ask(self.port, "/x", 20))))
        by_path = {"/p/%d" % i: get(self.port, "/p/%d" % i).text for i in range(40)}
        self.assertEqual(by_path, {path: get(self.port, path + "?q").text for path in by_path})
        self.assertLess(1, len(set(by_path.values())))

    def test_a_cookie_keeps_a_client_with_its_backend(self):
        by = '{policy: ConsistentHash, on: "cookie:SHOP"}'
        _, _, ports = self.two_data_planes(self.balanced(self.some("abcd"), by))
        used = collections.Counter()
        for _ in range(40):
            jar = CookieJar()
            browser = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(jar))

            def fetch(port: int) -> tuple[str, str | None]:
                with browser.open("http://127.0.0.1:%d/x" % port, timeout=20) as r:
                    return r.read().decode(), r.headers["Set-Cookie"]

            first, made = fetch(ports[0])
            self.assertRegex(made, "^SHOP=[0-9a-f]{32}; Path=/; HttpOnly; SameSite=Lax$")
            self.assertEqual(["SHOP"], [c.name for c in jar])
            for port in (*ports, *ports):
                self.assertEqual((first, None), fetch(port))
            used[first] += 1
        self.assertLess(1, len(used))
        self.say("40 browsers with a cookie each, asked 5 times on two data planes: %s" % dict(used))

    def test_backups_are_used_when_nobody_else_can_be(self):
        a, b, c, d = self.some("abcd")

        def pool(weight: int) -> list[str]:
            primaries = ["{url: %s, weight: %d}" % (o.url, weight) for o in (a, b)]
            return [*primaries, *("{url: %s, backup: true}" % o.url for o in (c, d))]

        cp, (dp,) = self.fleet(self.config({"/x": pool(1)}))
        self.assertEqual(list("abab"), ask(self.port, "/x", 4))
        self.change(cp, self.config({"/x": pool(0)}), dp)
        self.assertEqual(list("cdcd"), ask(self.port, "/x", 4))
        self.change(cp, self.config({"/x": pool(1)}), dp)
        self.assertEqual(list("abab"), ask(self.port, "/x", 4))

    def test_backups_are_used_when_all_others_are_sick(self):
        ward = Ward()
        a, b, c = (self.origin(n, ward.handle, record=False) for n in "abc")
        self.fleet(self.config({"/x": [a, b, "{url: %s, backup: true}" % c.url]}) + Ward.CHECK)
        for sick, usable in (("a", "b"), ("ab", "c"), ("abc", "ab"), ("bc", "a")):
            ward.sick = frozenset(sick)
            eventually(lambda: set(ask(self.port, "/x", 10)) == set(usable), "%s are used while %s are sick" % (usable, sick))

    def test_when_nobody_is_healthy(self):
        ward = Ward()
        pool = [self.origin(n, ward.handle, record=False) for n in "ab"]
        lines = [*self.config({"/all": pool}).splitlines(), Ward.CHECK]
        lines += ["- from: /none", "  panic: refuse", "  pool:", *("  - " + o.url for o in pool), Ward.CHECK]
        _, (dp,) = self.fleet("\n".join(lines) + "\n")
        self.assertEqual([200, 200], [get(self.port, path).status for path in ("/all", "/none")])

        ward.sick = frozenset("ab")
        eventually(lambda: get(self.port, "/none").status == 503, "requests are refused")
        eventually(lambda: dp.metrics().value("dataplane_endpoint_panic", endpoint="/all") == 1, "all are sick")
        self.assertEqual({"a", "b"}, set(ask(self.port, "/all", 4)))
        self.assertEqual(503, get(self.port, "/none").status)

        ward.sick = frozenset()
        for path in ("/all", "/none"):
            eventually(lambda: dp.metrics().value("dataplane_endpoint_panic", endpoint=path) == 0, "they are healthy again")
        self.assertEqual(200, get(self.port, "/none").status)
        m = dp.metrics()
        for path in ("/all", "/none"):
            self.assertEqual(1, m.value("dataplane_endpoint_panics_total", endpoint=path))
        refused = m.value("dataplane_requests_refused_total", endpoint="/none", reason="none_healthy")
        self.assertLessEqual(2, refused)
        self.assertEqual(refused, m.value("dataplane_requests_total", endpoint="/none", code="503", method="GET"))
        told = [(r["msg"], r["endpoint"]) for r in dp.records() if "usable" in r["msg"]]
        self.assertEqual(
            [
                ("a backend is usable again", "/all"),
                ("a backend is usable again", "/none"),
                ("no backend is usable: all are used", "/all"),
                ("no backend is usable: requests are refused", "/none"),
            ],
            sorted(told),
        )

    def test_a_backend_that_is_healthy_again_starts_slowly(self):
        ward = Ward()
        pool = [self.origin(n, ward.handle, record=False) for n in "ab"]
        self.fleet(self.balanced(pool, "{slowStart: 24h}", more=Ward.CHECK))
        self.assertEqual(list("abab"), ask(self.port, "/x", 4))
        ward.sick = frozenset("b")
        eventually(lambda: ask(self.port, "/x", 4) == list("aaaa"), "it is not used while it is sick")
        ward.sick = frozenset()
        eventually(lambda: "b" in ask(self.port, "/x", 20), "it is used again")
        counts = collections.Counter(ask(self.port, "/x", 1100))
        self.say("slowStart, a backend that is healthy again: %s" % dict(counts))
        self.assertEqual({"a": 1000, "b": 100}, counts)

    def test_a_new_backend_starts_slowly(self):
        a, b = self.some("ab")

        def file(pool, time: str) -> str:
            return self.balanced(pool, "{slowStart: %s}" % time)

        cp, (dp,) = self.fleet(file([a], "24h"))
        self.change(cp, file([a, b], "24h"), dp)
        counts = collections.Counter(ask(self.port, "/x", 1100))
        self.say("slowStart, a backend that is new: %s" % dict(counts))
        self.assertEqual({"a": 1000, "b": 100}, counts)
        # It is another setting that the same backend has been new for longer than.
        self.change(cp, file([a, b], "100ms"), dp)
        eventually(lambda: ask(self.port, "/x", 4) in (list("abab"), list("baba")), "it has its whole share")

    def test_a_change_of_the_policy_loses_no_request(self):
        pool = [self.origin(n, record=False) for n in "abc"]
        cp, dps = self.fleet(self.balanced(pool, "{}"), ["dp1", "dp2"])
        policies = [*POLICIES.values(), '{policy: ConsistentHash, on: "cookie:SHOP", slowStart: 1s}', "{slowStart: 1s}"]
        with Load(self.port, {"/x": "abc"}, keepalive=2, fresh=1) as load:
            for i in range(3 * len(policies)):
                weight = "{url: %s, weight: %d, backup: %s}" % (pool[0].url, 1 + i % 3, str(i % 2 == 0).lower())
                self.change(cp, self.balanced([weight, pool[1], pool[2]], policies[i % len(policies)]), *dps)
                self.wait_load(load, 20)
        self.assert_no_failures(load)
        self.assertEqual([], load.duplicates(*pool))
        self.say("%d changes of policy, weight and backups, %d requests, 0 lost" % (3 * len(policies), load.total()))

    def test_explain_tells_how(self):
        a, b = self.some("ab")
        pool = [a.url, "{url: %s, backup: true}" % b.url]
        cp, _ = self.fleet(self.balanced(pool, '{policy: ConsistentHash, on: "cookie:SHOP", slowStart: 30s}', more="  panic: refuse\n"))
        told = cp.cli("explain", "/x").stdout
        self.assertIn("load balancing: ConsistentHash on cookie:SHOP, slow start over 30s", told)
        self.assertIn("only when no other can be used: " + b.url, told)
        self.assertIn("when no backend is healthy: 503", told)
