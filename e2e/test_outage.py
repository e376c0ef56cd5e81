"""A plane is away: killed, restarted, or not there yet."""

import http

from e2e.harness import ConnectionLost, Load, Scenario, eventually, get


class ControlPlaneAway(Scenario):
    def test_killed_and_restarted_under_load(self):
        a, b = self.origin("a", record=False), self.origin("b", record=False)
        cp, dps = self.fleet(self.config({"/x": [a]}), ["dp1", "dp2"])
        version = cp.status()["version"]
        with Load(self.port, {"/x": "a"}) as load:
            self.wait_load(load)
            cp.kill()
            for dp in dps:
                eventually(
                    lambda dp=dp: dp.metrics().value("dataplane_controlplane_connected") == 0, "%s knows" % dp.id
                )
                self.assertTrue(dp.ready(), "a data plane alone stays ready")
            self.wait_load(load, 300)

            cp.start()
            self.wait_control_plane(cp)
            status = self.wait_applied(cp, dps)
            self.assertEqual(version, status["version"], "the same file has the same version after a restart")
            for dp in dps:
                eventually(
                    lambda dp=dp: dp.metrics().value("dataplane_controlplane_connected") == 1, "%s is back" % dp.id
                )
            load.expect("/x", "a", "b")
            self.change(cp, self.config({"/x": [b]}), *dps)
            load.expect("/x", "b")
            self.wait_load(load)
        self.assert_no_failures(load)
        self.assertEqual([], load.duplicates(a, b))
        self.say("kill -9 of the control plane under load: %d requests, 0 lost" % load.total())

    def test_it_reads_a_file_that_was_changed_while_it_was_away(self):
        a, b = self.origin("a"), self.origin("b")
        cp, (dp,) = self.fleet(self.config({"/x": [a]}))
        cp.kill()
        cp.config.write_text(self.config({"/x": [b]}))
        cp.start()
        self.wait_control_plane(cp)
        self.wait_applied(cp, [dp])
        self.assertEqual("b", get(self.port, "/x").text)

    def test_a_clean_stop_is_exit_status_0(self):
        a = self.origin("a")
        cp, (dp,) = self.fleet(self.config({"/x": [a]}))
        cp.terminate()
        self.assertEqual(0, cp.wait())
        self.assertEqual("a", get(self.port, "/x").text)
        dp.terminate()
        self.assertEqual(0, dp.wait())


class DataPlaneStartsAlone(Scenario):
    def test_it_serves_the_table_on_its_disk_and_says_so(self):
        a, b = self.origin("a"), self.origin("b")
        cp, (dp,) = self.fleet(self.config({"/x": [a]}))
        self.assertEqual(1, dp.metrics().value("dataplane_config_info", source="stream"))
        version = dp.version()
        cp.kill()
        dp.terminate()
        self.assertEqual(0, dp.wait())

        dp.start()
        self.wait_ready(dp)
        self.assertEqual("a", get(self.port, "/x").text)
        m = dp.metrics()
        self.assertEqual(1, m.value("dataplane_config_info", source="disk", version=version))
        self.assertEqual(0, m.value("dataplane_controlplane_connected"))

        cp.start()
        self.wait_control_plane(cp)
        self.wait_applied(cp, [dp])
        self.change(cp, self.config({"/x": [b]}), dp)
        self.assertEqual("b", get(self.port, "/x").text)
        self.assertEqual(1, dp.metrics().value("dataplane_config_info", source="stream"))

    def test_killed_it_starts_from_disk_as_well(self):
        a = self.origin("a")
        cp, (dp,) = self.fleet(self.config({"/x": [a]}))
        dp.kill()
        cp.kill()
        dp.start()
        self.wait_ready(dp)
        self.assertEqual("a", get(self.port, "/x").text)

    def test_a_damaged_table_is_reported_and_ignored(self):
        a = self.origin("a")
        cp, (dp,) = self.fleet(self.config({"/x": [a]}))
        cp.kill()
        dp.terminate()
        dp.wait()
        stored = dp.state_dir / "routetable.bin"
        data = bytearray(stored.read_bytes())
        data[len(data) // 2] ^= 0x20
        stored.write_bytes(data)

        dp.start()
        self.assert_not_serving(dp)
        self.assertIn("routetable.bin", dp.log().rpartition("--- start: ")[2])

        cp.start()
        self.wait_control_plane(cp)
        self.wait_applied(cp, [dp])
        self.assertEqual("a", get(self.port, "/x").text)
        self.assertTrue(dp.ready())

    def test_a_table_cut_short_is_ignored(self):
        a = self.origin("a")
        cp, (dp,) = self.fleet(self.config({"/x": [a]}))
        cp.kill()
        dp.terminate()
        dp.wait()
        stored = dp.state_dir / "routetable.bin"
        for size in (0, 1, stored.stat().st_size - 1):
            with self.subTest(size=size):
                data = stored.read_bytes()
                stored.write_bytes(data[:size])
                dp.start()
                self.assert_not_serving(dp)
                dp.terminate()
                dp.wait()
                stored.write_bytes(data)

    def test_without_any_table_it_is_not_ready_and_opens_no_port(self):
        a = self.origin("a")
        cp = self.control_plane(self.config({"/x": [a]}))
        cp.kill()
        dp = self.data_plane("dp1", cp)
        self.assert_not_serving(dp)
        cp.start()
        self.wait_ready(dp)
        self.assertEqual("a", get(self.port, "/x").text)

    def assert_not_serving(self, dp):
        def admin_says():
            return get(dp.admin_port, "/healthz").status, get(dp.admin_port, "/readyz").status

        want = (http.HTTPStatus.OK, http.HTTPStatus.SERVICE_UNAVAILABLE)
        eventually(lambda: admin_says() == want, "alive and not ready")
        # It has tried to reach its control plane, so it has looked at its disk.
        eventually(lambda: dp.metrics().value("dataplane_controlplane_connected") == 0, "it is alone")
        self.assertEqual(want, admin_says())
        with self.assertRaises(ConnectionLost):
            get(self.port, "/x")
