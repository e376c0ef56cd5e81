"""Several control planes: data planes spread over them, and lose none for long."""

import collections
import datetime
import socket
import threading
import time

from e2e.harness import ControlPlane, DataPlane, Load, Reservation, Scenario, eventually, get
from e2e.harness.scenario import write


class Swallower:
    """A TCP proxy in front of a control plane that can begin to swallow: its
    connections stay open, new ones are accepted, and no byte comes through."""

    def __init__(self, port: int):
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.server = "127.0.0.1:%d" % self._listener.getsockname()[1]
        self.swallows = threading.Event()
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                server = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                return
            self._sockets.append(server)
            for a, b in ((client, server), (server, client)):
                threading.Thread(target=self._copy, args=(a, b), daemon=True).start()

    def _copy(self, a: socket.socket, b: socket.socket) -> None:
        try:
            while data := a.recv(65536):
                if not self.swallows.is_set():
                    b.sendall(data)
            b.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        for s in [self._listener, *self._sockets]:
            s.close()


class ControlPlanes(Scenario):
    def setUp(self):
        super().setUp()
        self.a, self.b = self.origin("a", record=False), self.origin("b", record=False)

    def replicas(self, *names: str) -> list[ControlPlane]:
        """Control planes that read the same file."""
        first = self.control_plane(self.config({"/x": [self.a]}), name=names[0])
        rest = [ControlPlane(name, first.config, self.dir / (name + ".log")) for name in names[1:]]
        for cp in rest:
            self.program(cp)
        for cp in rest:
            self.wait_control_plane(cp)
        return [first, *rest]

    def many(self, n: int, *cps: ControlPlane) -> list[DataPlane]:
        """Data planes that share a port and serve."""
        dps = [self.data_plane("dp%d" % i, *cps, flags=["--threads", "1"]) for i in range(n)]
        for dp in dps:
            self.wait_ready(dp)
        return dps

    @staticmethod
    def connections(dp: DataPlane) -> list[tuple[float, str]]:
        """When it connected to which control plane, in Unix time."""
        return [
            (datetime.datetime.fromisoformat(r["time"]).timestamp(), r["controlplane"])
            for r in dp.records()
            if r["msg"] == "control plane connected"
        ]

    def home(self, dp: DataPlane, cps: list[ControlPlane]) -> ControlPlane:
        """The control plane that it is connected to."""
        server = self.connections(dp)[-1][1]
        return next(cp for cp in cps if cp.server == server)

    def moved(self, dps: list[DataPlane], since: float) -> list[float]:
        """Waits until each has connected again, and returns after how long."""
        return sorted(
            eventually(
                lambda dp=dp: [at - since for at, _ in self.connections(dp) if at > since], "%s has moved" % dp.id, within=60
            )[0]
            for dp in dps
        )

    def test_data_planes_of_a_killed_one_move_at_once(self):
        cps = self.replicas("cp1", "cp2", "cp3")
        dps = self.many(20, *cps)
        homes = collections.Counter(self.home(dp, cps).name for dp in dps)
        self.say("20 data planes chose of 3 control planes: %s" % dict(sorted(homes.items())))
        applied = {dp.id: dp.metrics().sum("dataplane_config_updates_total") for dp in dps}
        with Load(self.port, {"/x": "a"}) as load:
            self.wait_load(load)
            lost = next(cp for cp in cps if cp.name == homes.most_common(1)[0][0])
            theirs = [dp for dp in dps if self.home(dp, cps) is lost]
            since = time.time()
            lost.kill()
            after = self.moved(theirs, since)
            self.wait_load(load)
        self.assert_no_failures(load)
        left = [cp for cp in cps if cp is not lost]
        for cp in left:
            self.wait_applied(cp, [dp for dp in dps if self.home(dp, left) is cp])
        self.assertEqual(applied, {dp.id: dp.metrics().sum("dataplane_config_updates_total") for dp in dps}, "no new table")
        self.say(
            "kill -9 of a control plane with %d data planes: connected to another after p50 %.0f ms, max %.0f ms"
            % (len(theirs), 1000 * after[len(after) // 2], 1000 * after[-1])
        )

    def hang(self, hang, *cps, count: int, what: str) -> None:
        dps = self.many(count, *cps)
        servers = {cp.server: cp for cp in cps}
        hung = servers[self.connections(dps[0])[-1][1]]
        theirs = [dp for dp in dps if self.connections(dp)[-1][1] == hung.server]
        with Load(self.port, {"/x": "a"}) as load:
            since = time.time()
            hang(hung)
            after = self.moved(theirs, since)
            self.wait_load(load)
        self.assert_no_failures(load)
        self.say("%s, with %d data planes: connected to another after p50 %.1f s, max %.1f s" % (what, len(theirs), after[len(after) // 2], after[-1]))

    def test_a_stopped_one_is_left(self):
        self.hang(lambda cp: cp.freeze(), *self.replicas("cp1", "cp2"), count=6, what="SIGSTOP of a control plane")

    def test_a_network_that_swallows_everything_is_left(self):
        swallowers = [Swallower(cp.port) for cp in self.replicas("cp1", "cp2")]
        for s in swallowers:
            self.addCleanup(s.close)
        self.hang(lambda s: s.swallows.set(), *swallowers, count=4, what="a network that swallows every byte")

    def test_nothing_flaps_between_replicas_of_one_file(self):
        first, second = self.replicas("cp1", "cp2")
        dps = self.many(3, first, second)
        # They count differently: one is started again, and only the other has seen a change.
        second.kill()
        self.wait_applied(first, dps)
        self.change(first, self.config({"/x": [self.b]}), *dps)
        status = self.change(first, self.config({"/x": [self.a]}), *dps)
        second.start()
        self.wait_control_plane(second)
        self.assertEqual(status["version"], second.status()["version"])
        self.assertLess(second.status()["revision"], status["revision"])

        updates = {dp.id: dp.metrics().sum("dataplane_config_updates_total") for dp in dps}
        here, there = first, second
        for _ in range(4):
            here.kill()
            self.wait_applied(there, dps)
            self.assertEqual(0, there.metrics().sum("controlplane_pushes_total"), "a table was sent")
            here.start()
            self.wait_control_plane(here)
            here, there = there, here
        self.assertEqual(updates, {dp.id: dp.metrics().sum("dataplane_config_updates_total") for dp in dps})
        self.assertEqual(status["version"], here.status()["version"])
        self.say("3 data planes moved 4 times between 2 control planes: 0 tables sent, 0 applied, revision %d then %d" % (status["revision"], here.status()["revision"]))

    def test_files_that_differ_for_a_moment_cost_a_table_for_each_move(self):
        first = self.control_plane(self.config({"/x": [self.a]}), name="cp1")
        second = self.control_plane(self.config({"/x": [self.a]}), name="cp2")
        own = Reservation()
        self.addCleanup(own.release)
        dp = self.data_plane("dp", first, second, flags=["--port", str(own.port)])
        self.wait_ready(dp)
        here = self.home(dp, [first, second])
        there = second if here is first else first

        def applied() -> int:
            return int(dp.metrics().value("dataplane_config_updates_total", result="applied"))

        self.change(here, self.config({"/x": [self.b]}), dp)
        self.assertEqual((2, "b"), (applied(), get(own.port, "/x").text))
        here.kill()
        self.wait_applied(there, [dp])
        self.assertEqual((3, "a"), (applied(), get(own.port, "/x").text))
        # The edit arrives at the other one; with it nothing is left to change.
        self.change(there, self.config({"/x": [self.b]}), dp)
        self.assertEqual((4, "b"), (applied(), get(own.port, "/x").text))
        here.start()
        self.wait_control_plane(here)
        there.kill()
        self.wait_applied(here, [dp])
        self.assertEqual((4, "b"), (applied(), get(own.port, "/x").text))

    def test_in_a_roll_out_a_data_plane_stays_on_what_it_has(self):
        cps = self.replicas("cp1", "cp2")
        (mover,) = self.many(1, *cps)
        here = self.home(mover, cps)
        there = cps[1 - cps.index(here)]
        others = [self.data_plane(name, there) for name in ("other1", "other2")]
        self.wait_applied(there, others)
        before = there.status()["version"]
        write(here.config, self.config({"/x": [self.b]}, extra="rollout: {steps: [1, 100%], bake: 10m}"))
        eventually(lambda: mover.version() not in ("", before), "it is the only one of its control plane, and the first")
        new = mover.version()
        eventually(lambda: sorted(dp.version() == new for dp in others) == [False, True], "one of two there has it as well")
        updates = mover.metrics().sum("dataplane_config_updates_total")
        here.kill()
        eventually(lambda: there.data_planes().get("dp0", {}).get("version") == new, "it has moved")
        eventually(lambda: mover.metrics().value("dataplane_controlplane_connected") == 1, "it is connected")
        self.wait_state(there, mover, "applied")
        self.assertEqual((new, updates), (mover.version(), mover.metrics().sum("dataplane_config_updates_total")))
        self.assertEqual([False, True], sorted(dp.version() == new for dp in others))

    def test_when_all_are_away_it_comes_back_to_the_first_that_is_there(self):
        cps = self.replicas("cp1", "cp2")
        (dp,) = self.many(1, *cps)
        for cp in cps:
            cp.kill()
        eventually(lambda: dp.metrics().value("dataplane_controlplane_connected") == 0, "it is alone")
        self.assertTrue(dp.ready())
        write(cps[0].config, self.config({"/x": [self.b]}))
        for cp in cps:
            cp.start()
            self.wait_control_plane(cp)
            self.wait_applied(cp, [dp])
            self.assertEqual("b", get(self.port, "/x").text)
            cp.kill()
