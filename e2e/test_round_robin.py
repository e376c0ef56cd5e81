"""Which backend gets which request."""

import threading

from e2e.harness import Client, Scenario, get


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
