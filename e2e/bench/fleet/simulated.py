"""A control plane, and the program that plays data planes for it."""

import dataclasses
import datetime
import json
import os
import pathlib
import select
import subprocess
import tempfile
import time

from e2e.bench import children, procfs
from e2e.bench.children import Child
from e2e.harness import ControlPlane
from e2e.harness.processes import BUILD

# The longest that anything may take, in seconds.
PATIENCE = 120.0


@dataclasses.dataclass
class Event:
    """All data planes run one version; see event in dataplanes/fleet.go."""

    version: str
    first: float
    p50: float
    p99: float
    last: float
    bytes_in: int
    bytes_out: int
    whole: int
    deltas: int
    resent: int
    streams: int
    refused: int


class DataPlanes(Child):
    """Many data planes in one process. They end with this process."""

    def __init__(self, server: str, count: int, folder: pathlib.Path, prefix: str = "sim", deltas: bool = True):
        self.count = count
        argv = [
            BUILD / "bench" / "dataplanes", "--controlplane", server, "--count", count, "--prefix", prefix,
            "--deltas=%s" % str(deltas).lower(),
        ]  # fmt: skip
        super().__init__(prefix, argv, folder)

    def start(self) -> None:
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen(self.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, **self.how)
        self.last: Event | None = None

    def stop(self) -> None:
        super().stop()
        if self.process is not None:
            self.process.stdin.close()
            self.process.stdout.close()

    def event(self, since: float, within: float = PATIENCE) -> Event:
        """Waits until all run the same version, and the last of them has come to do so
        after a time of time.monotonic()."""
        deadline = time.monotonic() + within
        while self.last is None or self.last.last < since:
            if not select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise RuntimeError("%d data planes do not agree within %.0f s: %s" % (self.count, within, self.log()[-2000:]))
            line = os.read(self.process.stdout.fileno(), 1 << 16)
            if not line:
                raise RuntimeError("dataplanes has ended: %s" % self.log()[-2000:])
            # Each line is written at once; of several the last one counts.
            self.last = Event(**json.loads(line.splitlines()[-1]))
        return self.last


@dataclasses.dataclass
class Usage:
    """What the control plane has used until now, and the data planes as well."""

    at: float
    control_plane: float
    data_planes: float


class Stage:
    """A control plane with a table of so many endpoints and so many data planes that
    run it. Used in a with statement."""

    def __init__(self, planes: int, endpoints: int, deltas: bool = True):
        self.planes, self.endpoints, self._deltas = planes, endpoints, deltas

    def __enter__(self) -> "Stage":
        self._temporary = tempfile.TemporaryDirectory(prefix="bench-fleet-")
        self.folder = pathlib.Path(self._temporary.name)
        self._config = self.folder / "config.yaml"
        self.write(0)
        self.control_plane = ControlPlane("controlplane", self._config, self.folder / "controlplane.log", "--state-dir", str(self.folder / "state"))
        self.control_plane.how = children.how()
        self.data_planes = DataPlanes(self.control_plane.server, self.planes, self.folder, deltas=self._deltas)
        try:
            self.started = time.monotonic()
            self.control_plane.start()
            self.listening()
            self.joining = time.monotonic()
            self.data_planes.start()
            self.joined = self.data_planes.event(self.started)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        self.data_planes.stop()
        self.control_plane.stop()
        self._temporary.cleanup()

    def write(self, generation: int, only: int | None = None) -> float:
        """Saves a table in which every endpoint, or only one of them, differs from that
        of another generation. Returns when it was saved."""
        text = ["port: 8000\nendpoints:\n"]
        for i in range(self.endpoints):
            g = generation if only is None or only == i else 0
            host = "%d.%d.%d:%d" % (i >> 16 & 255, i >> 8 & 255, i & 255, 8000 + g)
            text.append(
                '- {from: /service/%06d, pool: ["http://10.%s", "http://11.%s", "http://12.%s"]}\n' % (i, host, host, host)
            )
        new = self._config.with_suffix(".new")
        new.write_text("".join(text))
        new.rename(self._config)
        return time.monotonic()

    def accepted(self) -> float:
        """When the running configuration was accepted, as time.monotonic() tells it."""
        loaded = datetime.datetime.fromisoformat(self.control_plane.status()["config"]["loadedAt"])
        return loaded.timestamp() - time.time() + time.monotonic()

    def usage(self) -> Usage:
        pids = self.control_plane.pid, self.data_planes.pid
        return Usage(time.monotonic(), *(procfs.cpu(pid).total for pid in pids))

    def listening(self) -> None:
        """Waits until the control plane listens."""
        deadline = time.monotonic() + PATIENCE
        while not any(r.get("msg") == "listening" for r in self.control_plane.records()):
            if not self.control_plane.running() or time.monotonic() > deadline:
                raise RuntimeError("the control plane does not listen: %s" % self.control_plane.log()[-2000:])
            time.sleep(0.01)
