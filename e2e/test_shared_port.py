"""Several data planes on one port; one of them leaves, another comes."""

from e2e.harness import Client, ConnectionLost, Load, Scenario, eventually, get


class SharedPort(Scenario):
    def test_two_share_the_work(self):
        a, b = self.origin("a"), self.origin("b")
        _, dps = self.fleet(self.config({"/x": [a, b]}), ["dp1", "dp2"])
        for _ in range(200):
            self.assertEqual(200, get(self.port, "/x").status)

        def served() -> list[float]:
            return [dp.metrics().sum("dataplane_requests_total", endpoint="/x") for dp in dps]

        eventually(lambda: sum(served()) == 200, "all are counted")
        self.assertNotIn(0, served())
        # Each is exact for itself: together they differ by at most one each.
        self.assertLessEqual(abs(a.count() - b.count()), 2)

    def test_one_is_drained_and_another_started_under_load(self):
        a = self.origin("a", record=False)
        cp, (dp1, dp2) = self.fleet(self.config({"/x": [a]}), ["dp1", "dp2"], flags=["--drain-timeout", "5s"])
        with Load(self.port, {"/x": "a"}, keepalive=6, fresh=2) as load:
            self.wait_load(load, 300)
            dp1.terminate()
            eventually(lambda: not _ready(dp1), "the draining one is not ready")
            self.assertTrue(dp2.ready())
            self.assertEqual(0, dp1.wait(15))
            self.wait_load(load, 300)
            # It said goodbye: the control plane does not miss it.
            eventually(lambda: set(cp.data_planes()) == {"dp2"}, "it is forgotten")

            dp3 = self.data_plane("dp3", cp)
            self.wait_applied(cp, [dp2, dp3])
            self.wait_load(load, 300)
            dp2.terminate()
            self.assertEqual(0, dp2.wait(15))
            self.wait_load(load, 300)
        self.assert_no_failures(load)
        self.assertEqual([], load.duplicates(a))
        self.say("two drains under load: %d requests, 0 lost, %d reconnects" % (load.total(), load.reconnects))


def _ready(dp) -> bool:
    try:
        return dp.ready()
    except ConnectionLost:
        return False
