"""Whoever pushes a change learns truthfully when the whole fleet runs it."""

import json
import socket

from e2e.harness import Scenario, eventually, free_port, get, run


class Apply(Scenario):
    def setUp(self):
        super().setUp()
        self.a, self.b = self.origin("a"), self.origin("b")
        self.new = self.dir / "new.yaml"

    def test_wait_succeeds_when_all_have_applied(self):
        cp, dps = self.fleet(self.config({"/x": [self.a]}), ["dp1", "dp2"])
        self.new.write_text(self.config({"/x": [self.b]}))
        p = cp.cli("apply", str(self.new), "--wait", "--expect", "2", "--timeout", "20s")
        self.assertEqual(0, p.returncode, p.stdout + p.stderr)
        # Exit status 0 means: already true on both.
        self.assertEqual({cp.status()["version"]}, {dp.version() for dp in dps})
        self.assertEqual(["b"] * 20, [get(self.port, "/x").text for _ in range(20)])
        # The running control plane's file is the new one.
        self.assertEqual(self.new.read_text(), cp.config.read_text())

    def test_wait_fails_with_a_row_when_one_rejects(self):
        port = free_port()
        foreign = socket.create_server(("127.0.0.1", port))
        self.addCleanup(foreign.close)
        cp = self.control_plane(self.config({"/x": [self.a]}))
        # It keeps its own port whatever the file says, so it can apply.
        own = free_port()
        dp1 = self.data_plane("dp1", cp, flags=["--port", str(own)])
        dp2 = self.data_plane("dp2", cp)
        self.wait_applied(cp, [dp1, dp2])

        self.new.write_text(self.config({"/x": [self.b]}, port=port))
        p = cp.cli("apply", str(self.new), "--wait", "--timeout", "20s")
        output = p.stdout + p.stderr
        self.assertEqual(1, p.returncode, output)
        rows = [line for line in output.splitlines() if "dp2" in line]
        self.assertTrue(any("rejected" in r and str(port) in r for r in rows), output)
        self.assertEqual("b", get(own, "/x").text)
        self.assertEqual("a", get(self.port, "/x").text)

        # The same is told by status --wait.
        p = cp.cli("status", "--wait", "--timeout", "20s")
        self.assertEqual(1, p.returncode, p.stdout + p.stderr)
        self.assertIn("dp2", p.stdout + p.stderr)

    def test_wait_fails_when_fewer_than_expected_are_there(self):
        cp, _ = self.fleet(self.config({"/x": [self.a]}))
        self.new.write_text(self.config({"/x": [self.b]}))
        p = cp.cli("apply", str(self.new), "--wait", "--expect", "2", "--timeout", "1s")
        self.assertEqual(1, p.returncode, p.stdout + p.stderr)
        cp, _ = cp, self.data_plane("dp2", cp)
        p = cp.cli("status", "--wait", "--expect", "2", "--timeout", "20s")
        self.assertEqual(0, p.returncode, p.stdout + p.stderr)

    def test_one_that_vanished_is_still_expected(self):
        cp, (dp1, dp2) = self.fleet(self.config({"/x": [self.a]}), ["dp1", "dp2"])
        dp2.kill()
        self.wait_state(cp, dp2, "disconnected")
        self.new.write_text(self.config({"/x": [self.b]}))
        p = cp.cli("apply", str(self.new), "--wait", "--timeout", "2s")
        output = p.stdout + p.stderr
        self.assertEqual(1, p.returncode, output)
        self.assertTrue(any("dp2" in line and "disconnected" in line for line in output.splitlines()), output)
        dp2.start()
        p = cp.cli("status", "--wait", "--timeout", "20s")
        self.assertEqual(0, p.returncode, p.stdout + p.stderr)

    def test_a_bad_file_changes_nothing(self):
        cp, (dp,) = self.fleet(self.config({"/x": [self.a]}))
        before, text = cp.status(), cp.config.read_text()
        self.new.write_text(self.config({"/x": [self.a]}) + "- from: nowhere\n  pool: []\n")
        p = cp.cli("apply", str(self.new), "--wait")
        self.assertEqual(1, p.returncode, p.stdout + p.stderr)
        self.assertRegex(p.stdout + p.stderr, r"new\.yaml:\d+:\d+: ")
        self.assertEqual(text, cp.config.read_text())
        after = cp.status()
        self.assertEqual((before["version"], before["config"]["lastLoad"]), (after["version"], "ok"))

    def test_without_a_control_plane_it_fails(self):
        self.new.write_text(self.config({"/x": [self.a]}))
        server = "127.0.0.1:%d" % free_port()
        for args in (["apply", str(self.new)], ["status"]):
            p = run("controlplane", args[0], "--server", server, *args[1:], timeout=60)
            self.assertEqual(1, p.returncode, p.stdout + p.stderr)
            self.assertIn(server, p.stderr)


class Status(Scenario):
    def test_the_fleet_as_a_table_and_as_json(self):
        a = self.origin("a")
        cp = self.control_plane(self.config({"/x": [a]}))
        dp1 = self.data_plane("dp1", cp, flags=["--label", "zone=a", "--label", "rack=7"])
        dp2 = self.data_plane("dp2", cp)
        self.wait_applied(cp, [dp1, dp2])
        for _ in range(3):
            get(self.port, "/x")

        p = cp.cli("status")
        self.assertEqual(0, p.returncode, p.stderr)
        self.assertNotIn("\x1b", p.stdout, "colour only on a terminal")
        for dp in ("dp1", "dp2"):
            self.assertTrue(any(dp in line and "applied" in line for line in p.stdout.splitlines()), p.stdout)

        p = cp.cli("status", "-o", "json")
        self.assertEqual(0, p.returncode, p.stderr)
        status = json.loads(p.stdout)
        self.assertEqual(64, len(status["version"]))
        self.assertEqual(1, status["revision"])
        self.assertEqual("ok", status["config"]["lastLoad"])
        self.assertEqual(str(cp.config), status["config"]["file"])
        self.assertRegex(status["config"]["loadedAt"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
        self.assertEqual(["dp1", "dp2"], [d["id"] for d in status["dataplanes"]])
        row = status["dataplanes"][0]
        self.assertEqual({"zone": "a", "rack": "7"}, row["labels"])
        self.assertEqual(("applied", status["version"], 1, "stream"), tuple(row[k] for k in ("state", "version", "revision", "source")))
        self.assertLess(row["lastContactSeconds"], 30)
        self.assertFalse(row.get("error"))
        # The same fields over HTTP.
        self.assertEqual(status.keys(), cp.status().keys())
        self.assertEqual(row.keys(), cp.status()["dataplanes"][0].keys())
        # The count comes with the heartbeat, the first of which begins a stream.
        cp.kill()
        cp.start()
        self.wait_applied(cp, [dp1, dp2])
        eventually(
            lambda: sum(d["requestsTotal"] for d in cp.status()["dataplanes"]) == 3, "the requests are counted"
        )
