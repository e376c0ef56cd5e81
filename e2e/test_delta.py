"""Small changes of a large table are sent as what differs, and nobody can tell from the
requests."""

from e2e.harness import ControlPlane, DataPlane, Load, Scenario, eventually, get
from e2e.harness.scenario import write

ENDPOINTS = 3000
# More than what differs takes for one endpoint, and far less than the table.
FEW_BYTES = 2000


class Delta(Scenario):
    def setUp(self):
        super().setUp()
        self.a, self.b = self.origin("a", record=False), self.origin("b", record=False)
        self.text = self.table()

    def table(self, **pools) -> str:
        """A large table in which /x has origin a, unless pools say otherwise."""
        many = {"/service/%04d" % i: ["http://127.0.0.1:9/%d" % i] for i in range(ENDPOINTS)}
        return self.config(many | {"/x": [self.a]} | {"/" + name: pool for name, pool in pools.items()})

    def sent(self, cp: ControlPlane) -> dict[str, tuple[float, float]]:
        """Tables and bytes that were sent, by kind."""
        m = cp.metrics()
        return {
            kind: tuple(m.value("controlplane_" + name, kind=kind) for name in ("tables_sent_total", "table_bytes_sent_total"))
            for kind in ("whole", "delta")
        }

    def since(self, before: dict, cp: ControlPlane) -> dict[str, tuple[float, float]]:
        return {kind: (n - before[kind][0], size - before[kind][1]) for kind, (n, size) in self.sent(cp).items()}

    def assert_delta(self, before: dict, cp: ControlPlane, planes: int) -> float:
        """All of them got the change as a delta; returns the bytes of one."""
        sent = self.since(before, cp)
        self.assertEqual((0, 0), sent["whole"])
        self.assertEqual(planes, sent["delta"][0])
        self.assertLess(sent["delta"][1], planes * FEW_BYTES)
        return sent["delta"][1] / planes

    def assert_same_version(self, cp: ControlPlane, *dps: DataPlane) -> None:
        """By what the data planes themselves have computed."""
        version = cp.status()["version"]
        self.assertEqual([version] * len(dps), [dp.version() for dp in dps])

    def test_one_endpoint_of_many_changes_under_load(self):
        cp, dps = self.fleet(self.text, ["dp1", "dp2", "dp3"])
        first = self.sent(cp)
        self.assertEqual(0, first["delta"][0])
        with Load(self.port, {"/x": "a"}) as load:
            self.wait_load(load)
            before, sizes = first, []
            for pool in ([self.a, self.b], [self.b], [self.a]):
                load.expect("/x", "a", "b")
                self.change(cp, self.table(x=pool), *dps)
                sizes.append(self.assert_delta(before, cp, len(dps)))
                before = self.sent(cp)
                self.assert_same_version(cp, *dps)
            load.expect("/x", "a")
            self.wait_load(load)
        self.assert_no_failures(load)
        # Endpoints that come and go.
        self.change(cp, self.table(new=[self.b]), *dps)
        self.assert_delta(before, cp, len(dps))
        self.assertEqual("b", get(self.port, "/new").text)
        self.change(cp, self.text, *dps)
        self.assertEqual(404, get(self.port, "/new").status)
        self.assert_same_version(cp, *dps)
        # What has changed altogether is sent altogether.
        before = self.sent(cp)
        self.change(cp, self.text.replace("127.0.0.1:9/", "127.0.0.1:10/"), *dps)
        self.assertEqual(len(dps), self.since(before, cp)["whole"][0])
        self.say("one of %d endpoints changes: %.0f bytes to each data plane instead of %.0f" % (
            ENDPOINTS, max(sizes), first["whole"][1] / first["whole"][0]))

    def test_a_data_plane_that_was_away_starts_from_the_table_on_its_disk(self):
        cp, (dp,) = self.fleet(self.text)
        self.change(cp, self.table(x=[self.b]), dp)  # so that what it has stored was made of a delta
        dp.kill()
        before = self.sent(cp)
        revision = cp.status()["revision"]
        write(cp.config, self.table(x=[self.b], y=[self.a]))
        eventually(lambda: cp.status()["revision"] > revision, "the change is accepted")
        dp.start()
        self.wait_applied(cp, [dp])
        self.assert_delta(before, cp, 1)
        self.assert_same_version(cp, dp)
        self.assertEqual(["b", "a"], [get(self.port, path).text for path in ("/x", "/y")])

    def test_one_whose_stored_table_is_damaged_gets_the_whole_one(self):
        cp, (dp,) = self.fleet(self.text)
        self.change(cp, self.table(x=[self.b]), dp)
        dp.kill()
        stored = dp.state_dir / "routetable.bin"
        data = bytearray(stored.read_bytes())
        data[len(data) // 2] ^= 1
        stored.write_bytes(data)
        before = self.sent(cp)
        dp.start()
        self.wait_applied(cp, [dp])
        self.assertEqual([1, 0], [self.since(before, cp)[kind][0] for kind in ("whole", "delta")])
        self.assert_same_version(cp, dp)
        # And from then on, deltas again.
        before = self.sent(cp)
        self.change(cp, self.table(x=[self.a]), dp)
        self.assert_delta(before, cp, 1)
        self.assertEqual("a", get(self.port, "/x").text)

    def test_an_edit_while_the_control_plane_is_down_is_sent_as_a_delta(self):
        cp = self.control_plane(self.text, "--state-dir", str(self.dir / "cp.state"))
        dp = self.data_plane("dp1", cp)
        self.wait_applied(cp, [dp])
        cp.kill()
        write(cp.config, self.table(x=[self.b]))
        cp.start()
        self.wait_control_plane(cp)
        self.wait_applied(cp, [dp])
        self.assert_delta({"whole": (0, 0), "delta": (0, 0)}, cp, 1)
        self.assert_same_version(cp, dp)
        self.assertEqual("b", get(self.port, "/x").text)

    def test_a_control_plane_that_does_not_know_the_version_sends_the_whole_table(self):
        cp, (dp,) = self.fleet(self.text)
        cp.kill()
        write(cp.config, self.table(x=[self.b]))
        cp.start()
        self.wait_control_plane(cp)
        self.wait_applied(cp, [dp])
        self.assertEqual([1, 0], [self.sent(cp)[kind][0] for kind in ("whole", "delta")])
        self.assert_same_version(cp, dp)
        self.assertEqual("b", get(self.port, "/x").text)
