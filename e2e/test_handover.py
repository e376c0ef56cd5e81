"""One data plane takes over from another on a shared port, again and again, and
not one request notices."""

import time

from e2e.harness import Client, Load, Scenario, eventually

HAND_OVERS = 10
CLIENTS = 32
KEPT = 16


class HandOver(Scenario):
    def setUp(self):
        super().setUp()
        self.a = self.origin("a", record=False)
        self.cp, (self.current,) = self.fleet(self.config({"/x": [self.a]}), ["dp0"], flags=["--drain-timeout", "4s"])

    def successor(self, i: int):
        """Starts the next data plane, which serves when this returns."""
        dp = self.data_plane("dp%d" % i, self.cp, flags=["--drain-timeout", "4s"])
        self.wait_applied(self.cp, [dp])
        self.wait_ready(dp)
        return dp

    def test_ten_hand_overs_under_load_lose_nothing(self):
        took = []
        with (
            Load(self.port, {"/x": "a"}, keepalive=0, fresh=CLIENTS) as fresh,
            Load(self.port, {"/x": "a"}, keepalive=KEPT, fresh=0) as kept,
        ):
            for i in range(1, HAND_OVERS + 1):
                self.wait_load(fresh, 200)
                eventually(lambda: kept.held == KEPT, "all clients have come over")
                old, self.current = self.current, self.successor(i)
                began = time.monotonic()
                old.terminate()
                self.assertEqual(0, old.wait(20))
                took.append(time.monotonic() - began)
            self.wait_load(fresh, 200)
            self.wait_load(kept, 200)
        self.say("%d hand-overs, from SIGTERM to exit %.1f s at most" % (HAND_OVERS, max(took)))
        for kind, load in (("%d clients that connect for each request" % CLIENTS, fresh), ("%d that keep alive" % KEPT, kept)):
            self.say(
                "%s: %d requests, %d failed, longest %.0f ms" % (kind, load.total(), len(load.failures), 1000 * load.slowest)
            )
        self.assert_no_failures(fresh)
        self.assert_no_failures(kept)
        self.assertEqual([], fresh.duplicates(self.a) + kept.duplicates(self.a))
        # Each has moved over at each hand-over.
        self.assertGreaterEqual(kept.reconnects, KEPT * HAND_OVERS)

    def test_clients_are_sent_away_a_few_at_a_time(self):
        clients = [Client(self.port) for _ in range(CLIENTS)]
        for c in clients:
            self.addCleanup(c.close)
            self.assertFalse(c.request("/x").closes)
        self.successor(1)
        self.current.terminate()
        began = time.monotonic()
        # Every client asks once in each round. How many are told to close?
        rounds, told = [], []
        while clients:
            self.assertLess(time.monotonic() - began, 20, "%d clients were never told" % len(clients))
            stay = []
            for c in clients:
                r = c.request("/x")  # ConnectionLost would be a lost request
                self.assertEqual((200, True), (r.status, r.complete))
                if r.closes:
                    told.append(time.monotonic() - began)
                else:
                    stay.append(c)
            if len(stay) < len(clients):
                rounds.append(len(clients) - len(stay))
            clients = stay
        self.assertEqual(0, self.current.wait(20))
        self.say("%d keep-alive clients were told to close in %d portions, from %.2f to %.2f s after SIGTERM"
                 % (CLIENTS, len(rounds), told[0], told[-1]))  # fmt: skip
        self.assertGreater(len(rounds), 2, rounds)
