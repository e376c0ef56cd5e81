"""Which backend gets which request."""

import threading

from e2e.harness import Client, Reservation, Scenario, eventually, get


class RoundRobin(Scenario):
    def test_the_first_request_goes_to_the_first_url(self):
        a, b = self.origin("a"), self.origin("b")
        self.fleet(self.config({"/index": [a.url + "/index-proxied", b.url + "/index-proxied"]}))
        answers = [get(self.port, "/index") for _ in range(5)]
        self.assertEqual(["a", "b", "a", "b", "a"], [r.text for r in answers])
        self.assertEqual({"/index-proxied"}, {r.get("X-Target") for r in answers})

    def test_a_pool_of_one_is_plain_forwarding(self):
        a, b = self.origin("a"), self.origin("b")
        self.fleet(self.config({"/home": [b.url + "/home-proxied"], "/*": [a]}))
        self.assertEqual(["b", "b", "b"], [get(self.port, "/home").text for _ in range(3)])
        r = get(self.port, "/other/path?x=1&y=%2F")
        self.assertEqual(("a", "/other/path?x=1&y=%2F"), (r.text, r.get("X-Target")))

    def test_it_is_exact_over_all_connections_and_threads(self):
        origins = [self.origin(n) for n in "abc"]
        self.fleet(self.config({"/x": origins}))

        def client():
            with Client(self.port) as c:
                for _ in range(75):
                    self.assertEqual(200, c.request("/x").status)

        threads = [threading.Thread(target=client) for _ in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual([200, 200, 200], [o.count() for o in origins])

    def test_weights_are_smooth_and_zero_is_drained(self):
        a, b, c = self.origin("a"), self.origin("b"), self.origin("c")
        pool = ["{url: %s, weight: 3}" % a.url, b, "{url: %s, weight: 0}" % c.url]
        self.fleet(self.config({"/x": pool}))
        answers = "".join(get(self.port, "/x").text for _ in range(12))
        self.assertEqual("aaba" * 3, answers)
        self.assertEqual(0, c.count())

    def test_an_unchanged_pool_continues_its_cycle_over_a_change(self):
        a, b = self.origin("a"), self.origin("b")
        cp, (dp,) = self.fleet(self.config({"/x": [a, b], "/y": [a]}))
        self.assertEqual("a", get(self.port, "/x").text)
        self.change(cp, self.config({"/x": [a, b], "/y": [b]}), dp)
        self.assertEqual(["b", "a"], [get(self.port, "/x").text for _ in range(2)])

    def test_all_backends_drained_is_503(self):
        a = self.origin("a")
        self.fleet(self.config({"/x": ["{url: %s, weight: 0}" % a.url]}))
        self.assertEqual(503, get(self.port, "/x").status)
        self.assertEqual(0, a.count())


class Fleet(Scenario):
    """Four data planes, each on a port of its own, that begin together."""

    def setUp(self):
        super().setUp()
        self.origins = [self.origin(n) for n in "abcd"]

    def four(self, pools: dict) -> None:
        self.cp = self.control_plane(self.config(pools))
        self.dps, self.ports = [], []
        for i in range(4):
            own = Reservation()
            self.addCleanup(own.release)
            self.ports.append(own.port)
            self.dps.append(self.data_plane("dp%d" % i, self.cp, flags=["--port", str(own.port)]))
        self.wait_applied(self.cp, self.dps)

    def each_once(self, path: str) -> str:
        """The backends that get one request of each data plane, sorted."""
        return "".join(sorted(get(port, path).text for port in self.ports))

    def assert_spread(self, path: str, pool: int, rounds: int) -> int:
        """Asks every data plane so many times, in turns, and checks the bound
        after each turn. Returns the largest difference between two backends."""
        counts, worst = dict.fromkeys("abcd"[:pool], 0), 0
        for k in range(1, rounds + 1):
            for port in self.ports:
                counts[get(port, path).text] += 1
            differ = max(counts.values()) - min(counts.values())
            bound = min(4 % pool, pool - 4 % pool, k % pool, pool - k % pool)
            self.assertLessEqual(differ, bound, "%d requests to each of 4 data planes: %s" % (k, counts))
            worst = max(worst, differ)
        return worst

    def test_first_requests_are_spread_over_the_backends(self):
        pools = {"/%d" % n: self.origins[:n] for n in (1, 2, 3, 4)}
        self.four(pools)
        worst = {n: self.assert_spread("/%d" % n, n, 2 * n) for n in (1, 2, 3, 4)}
        self.say("4 data planes begin together: backends differ by at most %s requests" % worst)

    def test_a_change_spreads_new_pools_and_continues_the_others(self):
        self.four({"/old": self.origins, "/changed": self.origins[:3]})
        self.assertEqual("abcd", self.each_once("/old"))
        self.each_once("/changed")
        self.change(self.cp, self.config({"/old": self.origins, "/changed": self.origins, "/new": self.origins}), *self.dps)
        first = [get(port, "/new").text for port in self.ports]
        self.assertEqual("abcd", "".join(sorted(first)))
        self.assertEqual(first, [get(port, "/changed").text for port in self.ports])
        # An unchanged pool is one request further on each data plane.
        following = dict(zip("abcd", "bcda"))
        self.assertEqual([following[b] for b in first], [get(port, "/old").text for port in self.ports])

    def test_weights_are_spread_by_their_schedule(self):
        a, b = self.origins[:2]
        self.four({"/x": ["{url: %s, weight: 3}" % a.url, b]})
        for _ in range(4):
            self.assertEqual("aaab", self.each_once("/x"))

    def test_they_start_from_disk_at_their_places(self):
        self.four({"/x": self.origins})
        self.cp.kill()
        for dp in self.dps:
            dp.kill()
        for dp in self.dps:
            dp.start()
        for dp in self.dps:
            self.wait_ready(dp)
        self.assertEqual("abcd", self.each_once("/x"))

    def test_the_one_that_is_left_begins_with_the_first_url(self):
        self.four({"/x": self.origins})
        for dp in self.dps[:3]:
            dp.terminate()
            self.assertEqual(0, dp.wait())
        eventually(lambda: len(self.cp.data_planes()) == 1, "the others are forgotten")
        self.change(self.cp, self.config({"/x": self.origins, "/y": self.origins}), self.dps[3])
        self.assertEqual(["a", "b"], [get(self.ports[3], "/y").text for _ in range(2)])
