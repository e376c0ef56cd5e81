"""SIGTERM: finish what is in flight, then exit 0."""

import threading
import time

from e2e.harness import Client, ConnectionLost, Scenario, answer, eventually, get


class Drain(Scenario):
    def setUp(self):
        super().setUp()
        self.release = threading.Event()
        self.waiting = threading.Event()
        self.addCleanup(self.release.set)

        def held(origin, request, connection):
            connection.read_body(request)
            if request.target == "/slow":
                self.waiting.set()
                self.release.wait(60)
            answer(connection, b"a")

        self.a = self.origin("a", held)

    def refused(self) -> bool:
        try:
            with Client(self.port):
                return False
        except ConnectionLost:
            return True

    def test_a_request_in_flight_is_finished(self):
        _, (dp,) = self.fleet(self.config({"/*": [self.a]}), flags=["--drain-timeout", "30s"])
        with Client(self.port) as busy, Client(self.port) as idle:
            self.assertEqual(200, idle.request("/fast").status)
            busy.send(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
            self.assertTrue(self.waiting.wait(10))

            dp.terminate()
            eventually(self.refused, "new connections are refused")
            self.assertEqual(503, get(dp.admin_port, "/readyz").status)
            self.assertEqual(200, get(dp.admin_port, "/healthz").status)
            self.assertTrue(dp.running())

            self.release.set()
            r = busy.response()
            self.assertEqual((200, "a", True), (r.status, r.text, r.complete))
            self.assertTrue(r.closes, "the connection says that it ends")
            self.assertTrue(busy.at_end())
        # Nothing is left: it does not wait for the rest of the drain time.
        began = time.monotonic()
        self.assertEqual(0, dp.wait(29))
        self.say("exit after the last connection: %.1f s" % (time.monotonic() - began))

    def test_keep_alive_connections_are_told_and_lose_nothing(self):
        _, (dp,) = self.fleet(self.config({"/*": [self.a]}), flags=["--drain-timeout", "4s"])
        clients = [Client(self.port) for _ in range(8)]
        for c in clients:
            self.addCleanup(c.close)
            self.assertFalse(c.request("/fast").closes)
        dp.terminate()
        eventually(lambda: not dp.ready(), "it says that it is not ready")
        answers = 0
        deadline = time.monotonic() + 20
        while clients and time.monotonic() < deadline:
            for c in list(clients):
                r = c.request("/fast")  # ConnectionLost would be a lost request
                self.assertEqual((200, True), (r.status, r.complete))
                answers += 1
                if r.closes:
                    clients.remove(c)
        self.assertEqual([], clients)
        self.assertEqual(0, dp.wait(10))

    def test_standing_still_is_no_silence_of_the_clients(self):
        _, (dp,) = self.fleet(self.config({"/*": [self.a]}), flags=["--drain-timeout", "10s"])
        with Client(self.port) as busy:
            busy.send(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
            self.assertTrue(self.waiting.wait(10))
            fresh = [Client(self.port) for _ in range(8)]
            for c in fresh:
                self.addCleanup(c.close)
            dp.terminate()
            eventually(lambda: dp.metrics().value("dataplane_connections", state="idle") == len(fresh), "all are accepted")
            eventually(lambda: not dp.ready(), "it drains")
            # The whole machine stands still for longer than a silent connection is
            # kept. The clients, which were about to ask, go on when it does.
            dp.freeze()
            self.release.wait(1.2)
            dp.thaw()
            for c in fresh:
                r = c.request("/fast")  # ConnectionLost would be a lost request
                self.assertEqual((200, True, True), (r.status, r.complete, r.closes))
            self.release.set()
            self.assertEqual(200, busy.response().status)
        self.assertEqual(0, dp.wait(20))

    def test_the_drain_time_is_the_longest(self):
        _, (dp,) = self.fleet(self.config({"/*": [self.a]}), flags=["--drain-timeout", "1s"])
        with Client(self.port) as busy:
            busy.send(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
            self.assertTrue(self.waiting.wait(10))
            dp.terminate()
            dp.wait(15)
            with self.assertRaises(ConnectionLost):
                busy.response()

    def test_a_second_signal_exits_at_once(self):
        _, (dp,) = self.fleet(self.config({"/*": [self.a]}), flags=["--drain-timeout", "60s"])
        with Client(self.port) as busy:
            busy.send(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
            self.assertTrue(self.waiting.wait(10))
            dp.terminate()
            eventually(self.refused, "it drains")
            dp.terminate()
            dp.wait(15)
