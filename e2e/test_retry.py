"""Requests that failed are sent again, to another backend; timeouts have reasons."""

import select
import socket
import struct
import threading
import time

from e2e.harness import Client, Load, Scenario, answer, eventually, free_port, get


def retry(attempts: int = 3, more: str = ", budget: 100%") -> str:
    return "defaults: {retry: {attempts: %d%s}}" % (attempts, more)


def reset(origin, request, connection):
    """Reads the request and answers with a reset."""
    connection.read_body(request)
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def busy(origin, request, connection):
    connection.read_body(request)
    answer(connection, b"busy", "503 Service Unavailable", method=request.method)


def ended(connection, timeout: float) -> bool:
    """Waits for the other side to close, or to send more."""
    return bool(select.select([connection.socket], [], [], timeout)[0])


class Retry(Scenario):
    def say_retries(self, dp, load, what: str):
        m = dp.metrics()
        self.say(
            "%s: %d requests, %d failed, %d sent again; the slowest took %.0f ms"
            % (what, load.total(), len(load.failures), m.sum("dataplane_retries_total"), 1000 * load.slowest)
        )

    def test_a_killed_backend_costs_no_request(self):
        a, b, c = (self.backend(name) for name in "abc")
        # With the budget that is the default.
        _, (dp,) = self.fleet(self.config({"/x": [a, b, c]}, extra=retry(more="")))
        with Load(self.port, {"/x": "abc"}, keepalive=4, fresh=2) as load:
            self.wait_load(load, 300)
            b.kill()
            self.wait_load(load, 1000)
            self.assertGreater(dp.metrics().sum("dataplane_retries_total"), 0)
            b.start()
            before = load.answered("b")
            eventually(lambda: load.answered("b") > before + 50, "the backend is used again")
        self.say_retries(dp, load, "one of three backends killed with -9 and started again")
        self.assert_no_failures(load)

    def test_a_frozen_backend_costs_time_and_no_request(self):
        a, b, c = (self.backend(name) for name in "abc")
        _, (dp,) = self.fleet(self.config({"/x": [a, b, c]}, extra=retry(more=", budget: 100%, perTryTimeout: 200ms")))
        with Load(self.port, {"/x": "abc"}, keepalive=4, fresh=2) as load:
            self.wait_load(load, 300)
            b.freeze()
            self.wait_load(load, 300)
            m = dp.metrics()
            self.assertGreater(m.sum("dataplane_retries_total", reason="timeout"), 0)
            self.assertGreater(m.sum("dataplane_backend_errors_total", backend=b.url, reason="per_try_timeout"), 0)
            b.thaw()
            before = load.answered("b")
            eventually(lambda: load.answered("b") > before + 50, "the backend is used again")
        self.say_retries(dp, load, "one of three backends stopped, 200 ms for an attempt")
        self.assert_no_failures(load)

    def test_resets_and_503_cost_no_request(self):
        resets, full = self.origin("resets", reset, record=False), self.origin("full", busy, record=False)
        a, b = self.origin("a", record=False), self.origin("b", record=False)
        config = self.config({"/reset": [resets, a, b], "/busy": [full, a, b]}, extra=retry())
        _, (dp,) = self.fleet(config)
        with Load(self.port, {"/reset": "ab", "/busy": "ab"}, keepalive=4, fresh=2) as load:
            self.wait_load(load, 1000)
        self.say_retries(dp, load, "one of three backends resets, or answers 503")
        self.assert_no_failures(load)
        m = dp.metrics()
        self.assertGreater(m.value("dataplane_retries_total", endpoint="/reset", reason="reset"), 0)
        self.assertGreater(m.value("dataplane_retries_total", endpoint="/busy", reason="503"), 0)
        # Every attempt counts for its backend, the request once.
        self.assertEqual(
            m.value("dataplane_retries_total", endpoint="/busy", reason="503"),
            m.value("dataplane_backend_requests_total", endpoint="/busy", backend=full.url, code="503"),
        )
        self.assertEqual({"200"}, m.labels("dataplane_requests_total", "code"))

    def test_an_outage_is_not_multiplied(self):
        attempts, lock = [0], threading.Lock()

        def count(origin, request, connection):
            with lock:
                attempts[0] += 1
            return reset(origin, request, connection)

        requests, percent = 600, 20
        dead = [self.origin(name, count, record=False) for name in "abcd"]
        config = self.config({"/x": dead}, extra="defaults: {retry: {attempts: 4, budget: %d%%}}" % percent)
        _, (dp,) = self.fleet(config)
        began = time.monotonic()
        client = Client(self.port)
        for _ in range(requests):
            self.assertEqual(502, client.request("/x").status)
        took = time.monotonic() - began
        client.close()
        self.say("all backends dead: %d requests made %d attempts in %.1f s, of 4 each" % (requests, attempts[0], took))
        # Three in a second are free, over any 10 s.
        self.assertLessEqual(attempts[0], requests * (100 + percent) / 100 + 3 * (10 + took))
        self.assertGreater(attempts[0], requests)
        m = dp.metrics()
        self.assertEqual(attempts[0], requests + m.sum("dataplane_retries_total"))
        self.assertGreater(m.value("dataplane_retries_skipped_total", why="budget"), 0)

    def test_a_post_is_never_doubled(self):
        bad, good = self.origin("bad", reset), self.origin("good")
        refuses = "http://127.0.0.1:%d" % free_port()
        self.fleet(self.config({"/resets": [bad, good], "/refuses": [refuses, good]}, extra=retry()))
        statuses = {}
        for path in ("/resets", "/refuses"):
            for method in ("POST", "PUT"):
                for i in range(40):
                    with Client(self.port) as client:
                        id_ = "%s-%s-%d" % (path[1:], method, i)
                        r = client.request(path, method, [("X-Request-Id", id_)], body=b"x" * 2000)
                        key = (path, method, r.status)
                        statuses[key] = statuses.get(key, 0) + 1
        seen = bad.ids + good.ids
        self.assertEqual(
            {
                ("/resets", "POST", 200): 20, ("/resets", "POST", 502): 20, ("/resets", "PUT", 200): 40,
                ("/refuses", "POST", 200): 40, ("/refuses", "PUT", 200): 40,
            },
            statuses,
        )  # fmt: skip
        posts = {id_: n for id_, n in seen.items() if "POST" in id_}
        self.assertEqual((80, {1}), (len(posts), set(posts.values())))
        self.assertTrue(all(r.body == b"x" * 2000 for r in bad.seen() + good.seen()))
        self.say("80 POSTs and 80 PUTs, a reset for every second or a port that refuses: backends got each POST once, PUTs %d times"
                 % sum(n for id_, n in seen.items() if "PUT" in id_))  # fmt: skip

    def test_each_timeout_has_its_reason(self):
        def slow(origin, request, connection):
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            for _ in range(1000):
                connection.send(b"x")
                if ended(connection, 0.02):
                    return False

        def silent(origin, request, connection):
            ended(connection, 20)
            return False

        def stops(origin, request, connection):
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx")
            ended(connection, 20)
            return False

        pools = {
            "/response": [self.origin("silent", silent)],
            "/idle": [self.origin("stops", stops)],
            "/request": [self.origin("slow", slow)],
        }
        config = self.config(pools, extra="limits: {headerTimeout: 500ms}\n"
                             "defaults: {timeouts: {response: 300ms, idle: 700ms, request: 1s}}")  # fmt: skip
        _, (dp,) = self.fleet(config)
        self.assertEqual(504, get(self.port, "/response").status)
        for path in ("/idle", "/request"):
            with Client(self.port) as client:
                r = client.request(path)
                self.assertEqual((200, False), (r.status, r.complete))
        with Client(self.port) as client:
            client.send(b"GET / HT")
            self.assertEqual(408, client.response().status)
        with Client(self.port) as client:
            client.send(b"POST /response HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc")
            self.assertEqual(408, client.response().status)

        def counted():
            m = dp.metrics()
            for endpoint in ("response", "idle", "request"):
                self.assertEqual(1, m.value("dataplane_backend_errors_total", endpoint="/" + endpoint, reason=endpoint + "_timeout"))
            self.assertEqual(3, m.sum("dataplane_backend_errors_total"))
            for reason in ("head_timeout", "body_timeout"):
                self.assertEqual(1, m.value("dataplane_client_errors_total", reason=reason))
            return True

        eventually(counted, "each is counted once, for what it is")
