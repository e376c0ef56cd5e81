"""The port changes, or belongs to somebody else."""

import socket
import threading

from e2e.harness import Client, ConnectionLost, Load, Scenario, answer, eventually, free_port, get


class PortChange(Scenario):
    def test_a_request_in_flight_on_the_old_port_finishes(self):
        release, waiting = threading.Event(), threading.Event()
        self.addCleanup(release.set)

        def held(origin, request, connection):
            connection.read_body(request)
            if request.target == "/slow":
                waiting.set()
                release.wait(60)
            answer(connection, b"a")

        a = self.origin("a", held)
        cp, dps = self.fleet(self.config({"/*": [a]}), ["dp1", "dp2"])
        new = free_port()
        with Client(self.port) as busy:
            busy.send(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
            self.assertTrue(waiting.wait(10))
            self.change(cp, self.config({"/*": [a]}, port=new), *dps)
            self.assertEqual(200, get(new, "/fast").status)
            eventually(lambda: _refuses(self.port), "the old port is closed")
            release.set()
            r = busy.response()
            self.assertEqual((200, "a", True), (r.status, r.text, r.complete))
        for dp in dps:
            self.assertTrue(dp.ready())

    def test_keep_alive_connections_move_over_without_loss(self):
        a = self.origin("a", record=False)
        cp, (dp,) = self.fleet(self.config({"/x": [a]}))
        new = free_port()
        with Load(self.port, {"/x": "a"}, keepalive=4, fresh=0) as load:
            self.wait_load(load, 100)
            # Clients go to the new port when the old connection ends.
            old, load.port = load.port, new
            self.change(cp, self.config({"/x": [a]}, port=new), dp)
            eventually(lambda: _refuses(old), "the old port is closed")
            self.wait_load(load, 200)
        self.assert_no_failures(load)
        self.assertEqual([], load.duplicates(a))


class ForeignProcess(Scenario):
    def foreign(self) -> tuple[int, socket.socket]:
        """A listener that shares its port with nobody."""
        port = free_port()
        s = socket.create_server(("127.0.0.1", port), reuse_port=False)
        self.addCleanup(s.close)
        return port, s

    def test_the_change_is_rejected_with_the_reason_and_the_old_table_serves(self):
        a = self.origin("a", record=False)
        cp, (dp,) = self.fleet(self.config({"/x": [a]}))
        version = dp.version()
        port, listener = self.foreign()
        with Load(self.port, {"/x": "a"}) as load:
            cp.config.write_text(self.config({"/x": [a]}, port=port))
            row = self.wait_state(cp, dp, "rejected")
            self.assertIn(str(port), row["error"])
            self.assertRegex(row["error"], r"in use")
            self.assertEqual(version, row["version"])
            self.assertEqual(version, dp.version())
            self.assertTrue(dp.ready())
            m = dp.metrics()
            self.assertEqual(0, m.value("dataplane_config_last_update_successful"))
            self.wait_load(load)

            # Back to the old content: what it serves is what is wanted.
            cp.config.write_text(self.config({"/x": [a]}))
            self.wait_state(cp, dp, "applied")
            self.wait_load(load)
        self.assert_no_failures(load)

        # And when the port is free, the next change succeeds.
        listener.close()
        self.change(cp, self.config({"/x": [a], "/y": [a]}, port=port), dp)
        self.assertEqual("a", get(port, "/y").text)
        self.assertEqual(1, dp.metrics().value("dataplane_config_last_update_successful"))

    def test_applying_it_again_succeeds_once_the_port_is_free(self):
        a = self.origin("a")
        cp, (dp,) = self.fleet(self.config({"/x": [a]}))
        port, listener = self.foreign()
        new = self.dir / "new.yaml"
        new.write_text(self.config({"/x": [a]}, port=port))
        again = ("apply", str(new), "--wait", "--timeout", "10s")
        p = cp.cli(*again)
        self.assertEqual(1, p.returncode, p.stdout + p.stderr)
        listener.close()
        p = cp.cli(*again)
        self.assertEqual(0, p.returncode, p.stdout + p.stderr)
        self.assertEqual("a", get(port, "/x").text)

    def test_at_the_start_it_is_not_ready_until_a_change(self):
        a = self.origin("a")
        port, _ = self.foreign()
        cp = self.control_plane(self.config({"/x": [a]}, port=port))
        dp = self.data_plane("dp1", cp)
        self.wait_state(cp, dp, "rejected")
        self.assertEqual(503, get(dp.admin_port, "/readyz").status)
        self.change(cp, self.config({"/x": [a]}), dp)
        self.assertEqual("a", get(self.port, "/x").text)


def _refuses(port: int) -> bool:
    try:
        with Client(port):
            return False
    except ConnectionLost:
        return True
