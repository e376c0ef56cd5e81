"""Backends are watched: those that fail their probes, or their requests, get none."""

import socket
import struct
import time

from e2e.harness import Load, Scenario, answer, eventually, get
from e2e.harness.origin import name_yourself

ACTIVE = "{interval: 200ms, timeout: 100ms, unhealthyAfter: 2, healthyAfter: 2%s}"


def active(more: str = "") -> str:
    return "defaults: {timeouts: {connect: 300ms, response: 300ms}, healthCheck: {active: %s}}" % (ACTIVE % more)


def passive(more: str = "", response: str = "20s") -> str:
    return "defaults: {timeouts: {response: %s}, healthCheck: {passive: {consecutiveFailures: 3, ejectFor: 1s%s}}}" % (response, more)


def members(dp, backend, state: str) -> float:
    return dp.metrics().sum("dataplane_backend_members", backend=backend.url, state=state)


class Health(Scenario):
    def wait_members(self, dp, backend, state: str) -> None:
        eventually(lambda: members(dp, backend, state) >= 1, "%s is %s" % (backend.name, state))

    def errors_of(self, load, trouble, noticed) -> tuple[int, float]:
        """Makes trouble, waits until it is noticed, and checks that no request fails
        from then on. Returns the failures and the seconds until then."""
        before, began = len(load.failures), time.monotonic()
        trouble()
        noticed()
        took = time.monotonic() - began
        go_on = load.under_way()
        eventually(lambda: not go_on(), "those that are under way have ended")
        failed = len(load.failures)
        self.wait_load(load, 300)
        self.assertEqual([], load.failures[failed:][:5], "failures after it was noticed")
        return failed - before, took


class Active(Health):
    def test_killed_and_frozen_backends_are_left_alone_and_used_again(self):
        a, b, c = (self.backend(name) for name in "abc")
        _, (dp,) = self.fleet(self.config({"/x": [a, b, c]}, extra=active()))
        with Load(self.port, {"/x": "abc"}, keepalive=4, fresh=2) as load:
            self.wait_load(load, 300)
            for what, trouble, cure in (("kill -9", b.kill, b.start), ("SIGSTOP", b.freeze, b.thaw)):
                errors, took = self.errors_of(load, trouble, lambda: self.wait_members(dp, b, "unhealthy"))
                before = load.answered("b")
                cure()
                self.wait_members(dp, b, "usable")
                eventually(lambda: load.answered("b") > before + 50, "b is used again")
                self.say(
                    "%s of one of three backends, probed every 200 ms: %d requests failed, out after %.0f ms" % (what, errors, 1000 * took)
                )
        self.assertEqual(1, dp.metrics().value("dataplane_backend_up", backend=b.url))

    def test_slow_and_failing_backends(self):
        state = {"slow": False, "status": "200 OK"}

        def moody(origin, request, connection):
            if state["slow"]:
                time.sleep(0.25)
            if state["status"] != "200 OK":
                connection.read_body(request)
                return answer(connection, b"", state["status"])
            return name_yourself(origin, request, connection)

        a, b = self.origin("a", record=False), self.origin("b", moody, record=False)
        _, (dp,) = self.fleet(self.config({"/x": [a, b]}, extra=active(", path: /health")))
        with Load(self.port, {"/x": "ab"}, keepalive=4, fresh=1) as load:
            self.wait_load(load)
            for what, key, bad, good in (("slow", "slow", True, False), ("answering 500", "status", "500 No", "200 OK")):
                errors, took = self.errors_of(load, lambda: state.update({key: bad}), lambda: self.wait_members(dp, b, "unhealthy"))
                state[key] = good
                self.wait_members(dp, b, "usable")
                self.say("one of two backends %s: %d requests failed, out after %.0f ms" % (what, errors, 1000 * took))
        # A busy machine can be too slow for a probe at any time.
        reasons = {r["error"] for r in dp.records() if r["msg"] == "backend unhealthy"}
        self.assertEqual({"no answer within 100ms", "status 500, expected 2xx"}, reasons)

    def test_one_stream_of_probes_and_a_state_that_survives_reloads(self):
        a, b = self.origin("a"), self.origin("b")
        pools = {"/%d" % i: [a, b] for i in range(5)}
        cp, (dp,) = self.fleet(self.config(pools, extra=active(", path: /health, jitter: 0%")))
        began = time.monotonic()
        start = a.count()
        eventually(lambda: a.count() >= start + 10, "ten probes")
        took = time.monotonic() - began
        self.assertEqual({"/health"}, {r.target for r in a.seen()})
        # Five streams would need 0.4 s for ten.
        self.assertGreater(took, 1)
        self.say("5 endpoints share 2 backends: %.1f probes a second of each, at an interval of 200 ms" % (10 / took))

        b.stop()
        eventually(lambda: members(dp, b, "unhealthy") == 5, "all endpoints know")
        logged = len([r for r in dp.records() if r["msg"] == "backend unhealthy"])
        self.assertEqual(1, logged)
        for i in range(3):
            pools["/new%d" % i] = [b, a]
            self.change(cp, self.config(pools, extra=active(", path: /health, jitter: 0%")), dp)
            self.assertEqual(["a"] * 4, [get(self.port, "/new%d" % i).text for _ in range(4)], "known at once")
            self.assertEqual(["a"] * 4, [get(self.port, "/0").text for _ in range(4)])
        self.assertEqual(1, len([r for r in dp.records() if r["msg"] == "backend unhealthy"]))
        config = get(dp.admin_port, "/config").text
        self.assertIn('"reason": "connect: connection refused"', config)


class Passive(Health):
    def run_trouble(self, what: str, trouble_of, expected: str, more: str = "") -> None:
        mode = {"bad": False}

        def handler(origin, request, connection):
            return trouble_of(connection, request) if mode["bad"] else name_yourself(origin, request, connection)

        a, b, c = self.origin("a", record=False), self.origin("b", handler, record=False), self.origin("c", record=False)
        _, (dp,) = self.fleet(self.config({"/x": [a, b, c]}, extra=passive(more)))
        with Load(self.port, {"/x": "abc"}, keepalive=4, fresh=2) as load:
            self.wait_load(load)
            before = len(load.failures)
            mode["bad"] = True
            self.wait_members(dp, b, "ejected")
            mode["bad"] = False
            answered = load.answered("b")
            self.wait_members(dp, b, "usable")
            eventually(lambda: load.answered("b") > answered + 20, "b is used again")
            failed = len(load.failures) - before
        ejections = dp.metrics().value("dataplane_backend_ejections_total", backend=b.url)
        self.assertGreaterEqual(ejections, 1)
        self.assertTrue(all(expected in f for f in load.failures), load.failures[:3])
        self.say("%s: %d requests failed until it was ejected, ejected %d times, used again" % (what, failed, ejections))

    def test_resets(self):
        def reset(connection, request):
            connection.read_body(request)
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False

        self.run_trouble("a backend that resets", reset, "status 502")

    def test_failures_by_status(self):
        def fail(connection, request):
            connection.read_body(request)
            answer(connection, b"", "500 No")

        self.run_trouble("a backend that answers 500", fail, "status 500", ", on5xx: true")

    def test_a_frozen_backend_is_ejected_for_longer_each_time(self):
        a, b = self.backend("a"), self.backend("b")
        _, (dp,) = self.fleet(self.config({"/x": [a, b]}, extra=passive(response="300ms")))
        with Load(self.port, {"/x": "ab"}, keepalive=4, fresh=2) as load:
            self.wait_load(load)
            b.freeze()
            eventually(lambda: dp.metrics().value("dataplane_backend_ejections_total", backend=b.url) >= 2, "two ejections")
            b.thaw()
            before = load.answered("b")
            eventually(lambda: load.answered("b") > before + 20, "b is used again")
        times = [r["for"] for r in dp.records() if r["msg"] == "backend ejected"]
        self.assertEqual(["1s", "2s"], times[:2])
        self.say("a backend stopped: ejected for %s; %d of %d requests failed" % (", ".join(times), len(load.failures), load.total()))

    def test_the_last_one_stays(self):
        a, b = self.backend("a"), self.backend("b")
        _, (dp,) = self.fleet(self.config({"/x": [a, b]}, extra=passive(", maxEjectedPercent: 100")))
        a.kill()
        b.kill()
        for _ in range(30):
            self.assertEqual(502, get(self.port, "/x").status)
        self.assertLessEqual(dp.metrics().sum("dataplane_backend_members", state="ejected"), 1)
        self.assertGreaterEqual(dp.metrics().sum("dataplane_backend_members", state="usable"), 1)
