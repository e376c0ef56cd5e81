"""The base of all scenarios: starts programs, waits, and cleans up."""

import os
import pathlib
import shutil
import sys
import tempfile
import time
import unittest
from collections.abc import Callable, Iterable
from typing import TypeVar

from e2e.harness.client import ConnectionLost, get
from e2e.harness.origin import Handler, Origin, name_yourself
from e2e.harness.ports import Reservation
from e2e.harness.processes import BUILD, DRIVER, Backend, ControlPlane, DataPlane, Program

T = TypeVar("T")


def eventually(check: Callable[[], T], what: str, within: float = 20, every: float = 0.02) -> T:
    """Asks until the answer is true, and returns it. A program that does not
    answer yet, or an assertion that does not hold yet, is a reason to go on."""
    deadline = time.monotonic() + within
    while True:
        try:
            last = check()
            if last:
                return last
        except (ConnectionLost, AssertionError) as e:
            last = e
        if time.monotonic() > deadline:
            raise AssertionError("not within %g s: %s; last seen: %r" % (within, what, last))
        time.sleep(every)


class Scenario(unittest.TestCase):
    """One scenario per test method. What a test starts is stopped after it; when
    it fails, the logs of everything it started are printed."""

    maxDiff = None
    longMessage = True

    def run(self, result=None):
        result = result or self.defaultTestResult()
        before = len(result.failures) + len(result.errors)
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="e2e-"))
        self.programs: list[Program] = []
        try:
            super().run(result)
            if len(result.failures) + len(result.errors) > before:
                self._print_logs()
        finally:
            if os.environ.get("E2E_KEEP"):
                print("kept: %s" % self.dir, file=sys.stderr)
            else:
                shutil.rmtree(self.dir, ignore_errors=True)
        return result

    def setUp(self) -> None:
        if not (BUILD / "controlplane").exists() or not (BUILD / "dataplane").exists():
            self.fail("there are no programs in %s: run make build" % BUILD)
        self.reservation = Reservation()
        self.addCleanup(self.reservation.release)
        # The proxy port of this test.
        self.port = self.reservation.port

    def say(self, text: str) -> None:
        """Prints a measured figure; never a condition of the test."""
        driver = " [%s]" % DRIVER if DRIVER else ""
        print("\n    measured: " + text + driver, file=sys.stderr, flush=True)

    # --- starting -------------------------------------------------------------

    def origin(self, name: str, handler: Handler = name_yourself, record: bool = True) -> Origin:
        o = Origin(name, handler, record)
        self.addCleanup(o.stop)
        return o

    def backend(self, name: str) -> Backend:
        """An origin in a process of its own, ready when this returns."""
        b = Backend(name, self.dir / (name + ".log"))
        self.program(b)
        self.wait_backend(b)
        return b

    def program(self, p: Program) -> Program:
        """Starts it, and stops it after the test, which fails when the program
        was in trouble."""
        self.programs.append(p)
        self.addCleanup(self._stop, p)
        p.start()
        return p

    def _stop(self, p: Program) -> None:
        trouble = p.trouble()
        p.stop()
        self.assertEqual("", trouble)

    def control_plane(self, config: str, *flags: str, name: str = "controlplane") -> ControlPlane:
        """Starts a control plane on a file with this text, and waits until it
        is ready."""
        path = self.dir / (name + ".yaml")
        write(path, config)
        cp = ControlPlane(name, path, self.dir / (name + ".log"), *flags)
        self.program(cp)
        self.wait_control_plane(cp)
        return cp

    def data_plane(
        self, name: str, *control_planes: ControlPlane, flags: Iterable[str] = (), env: dict[str, str] | None = None
    ) -> DataPlane:
        """Starts a data plane; does not wait for it."""
        servers = [cp.server for cp in control_planes]
        dp = DataPlane(name, servers, self.dir / (name + ".state"), self.dir / (name + ".log"), *flags)
        dp.env.update(env or {})
        self.program(dp)
        return dp

    def fleet(self, config: str, names: Iterable[str] = ("dp1",), flags: Iterable[str] = ()) -> tuple[ControlPlane, list[DataPlane]]:
        """A control plane and data planes that have all applied the config."""
        cp = self.control_plane(config)
        dps = [self.data_plane(name, cp, flags=flags) for name in names]
        self.wait_applied(cp, dps)
        return cp, dps

    # --- the file -------------------------------------------------------------

    def config(self, pools: dict[str, Iterable[Origin | str]], port: int | None = None, extra: str = "") -> str:
        """A file with an endpoint for each path. A pool holds origins or lines
        of YAML."""
        lines = ["port: %d" % (port or self.port), extra, "endpoints:"]
        for path, pool in pools.items():
            lines += ["- from: %s" % path, "  pool:"]
            lines += ["  - " + (b if isinstance(b, str) else b.url) for b in pool]
        return "\n".join(lines) + "\n"

    def change(self, cp: ControlPlane, config: str, *dps: DataPlane) -> dict:
        """Saves the file and waits until every data plane has applied it.
        Returns the status."""
        before = cp.status()["revision"]
        write(cp.config, config)
        return self.wait_applied(cp, dps, after=before)

    # --- waiting --------------------------------------------------------------

    def wait_control_plane(self, cp: ControlPlane) -> None:
        def up():
            if not cp.running():
                raise RuntimeError("the control plane ended with %d" % cp.process.returncode)
            return cp.status()

        eventually(up, "%s answers" % cp.name)

    def wait_applied(self, cp: ControlPlane, dps: Iterable[DataPlane], after: int = 0, within: float = 20) -> dict:
        """Waits until a revision later than after is applied by all dps."""
        dps = list(dps)

        def applied():
            status = cp.status()
            rows = {d["id"]: d for d in status["dataplanes"]}
            assert status["revision"] > after, status
            for dp in dps:
                row = rows.get(dp.id, {})
                assert row.get("state") == "applied" and row.get("version") == status["version"], status
            return status

        return eventually(applied, "all applied", within)

    def wait_backend(self, b: Backend) -> None:
        eventually(lambda: get(b.port, "/").status == 200, "%s answers" % b.name)

    def wait_state(self, cp: ControlPlane, dp: DataPlane, state: str, within: float = 30) -> dict:
        """Waits until the control plane shows the data plane in this state."""

        def there():
            row = cp.data_planes().get(dp.id, {})
            assert row.get("state") == state, row
            return row

        return eventually(there, "%s is %s" % (dp.id, state), within)

    def wait_ready(self, dp: DataPlane, within: float = 20) -> None:
        eventually(dp.ready, "%s is ready" % dp.id, within)

    def wait_load(self, load, more: int = 100) -> None:
        """Waits until the load has had this many more answers."""
        start = load.total()
        eventually(lambda: load.total() >= start + more, "%d more answers" % more)

    def assert_no_failures(self, load) -> None:
        self.assertEqual([], load.failures[:10], "%d of %d requests failed" % (len(load.failures), load.total()))

    def _print_logs(self) -> None:
        for p in self.programs:
            try:
                lines = p.log().splitlines()[-60:]
            except OSError:
                continue
            print("\n--- last lines of %s (%s)" % (p.name, self.id()), *lines, sep="\n", file=sys.stderr)


def write(path: pathlib.Path, text: str) -> None:
    """Saves a file the recommended way: written beside it, then renamed."""
    temporary = path.with_suffix(".new")
    temporary.write_text(text)
    temporary.replace(path)
