"""A data plane that hangs delays nobody and catches up."""

import time

from e2e.harness import Load, Scenario, free_port, get
from e2e.harness.scenario import write


class Frozen(Scenario):
    def test_the_others_get_the_change_and_it_catches_up(self):
        a, b, c = (self.origin(n, record=False) for n in "abc")
        cp = self.control_plane(self.config({"/x": [a]}))
        dp1 = self.data_plane("dp1", cp)
        # A port of its own: a frozen process that shares a port would keep the
        # connections that the kernel gives to it.
        port2 = free_port()
        dp2 = self.data_plane("dp2", cp, flags=["--port", str(port2)])
        self.wait_applied(cp, [dp1, dp2])
        old = cp.status()["version"]

        dp2.freeze()
        with Load(self.port, {"/x": "a"}) as load:
            load.expect("/x", "a", "b")
            saved = time.monotonic()
            self.change(cp, self.config({"/x": [b]}), dp1)
            self.say("one of two data planes stopped: the other applied after %.0f ms" % (1000 * (time.monotonic() - saved)))
            load.expect("/x", "b")
            row = cp.data_planes()["dp2"]
            self.assertIn(row["state"], ("pending", "stale"))
            self.assertEqual(old, row["version"])

            p = cp.cli("status", "--wait", "--timeout", "2s", "--expect", "2")
            self.assertEqual(1, p.returncode, p.stdout + p.stderr)
            self.assertIn("dp2", p.stdout + p.stderr)

            # Changes that it never needs to see.
            for pool in (a, b, c):
                load.expect("/x", "a", "b", "c")
                self.change(cp, self.config({"/x": [pool]}), dp1)
                load.expect("/x", pool.name)
            self.wait_load(load)
        self.assert_no_failures(load)

        dp2.thaw()
        status = self.wait_applied(cp, [dp1, dp2])
        self.assertEqual(status["version"], dp2.version())
        self.assertEqual("c", get(port2, "/x").text)

    def test_a_frozen_control_plane_is_noticed_and_nothing_is_lost(self):
        a, b = self.origin("a", record=False), self.origin("b", record=False)
        cp, (dp,) = self.fleet(self.config({"/x": [a]}))
        with Load(self.port, {"/x": "a"}) as load:
            cp.freeze()
            began = time.monotonic()
            while dp.metrics().value("dataplane_controlplane_connected") != 0:
                self.assertLess(time.monotonic() - began, 60, "the silence was never noticed")
                self.wait_load(load, 10)
            self.say("a hung control plane was noticed after %.1f s" % (time.monotonic() - began))
            write(cp.config, self.config({"/x": [b]}))
            load.expect("/x", "a", "b")
            cp.thaw()
            self.wait_applied(cp, [dp], after=1)
            load.expect("/x", "b")
            self.wait_load(load)
        self.assert_no_failures(load)
