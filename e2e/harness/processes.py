"""The built programs as child processes."""

import json
import os
import pathlib
import re
import resource
import signal
import subprocess
import sys
import time

from e2e.harness import metrics
from e2e.harness.client import get
from e2e.harness.ports import free_port

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("E2E_BUILD", ROOT / "build"))
# How data planes do I/O in this run of the tests; empty: as they do by default.
DRIVER = os.environ.get("E2E_DRIVER", "")


def run(program: str, *args: str, timeout: float = 60, env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    """Runs a program to its end and returns status, stdout and stderr."""
    return subprocess.run(
        [str(BUILD / program), *map(str, args)],
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        env=None if env is None else {**os.environ, **env},
    )


def allow_files(pid: int, n: int) -> int:
    """Lets a process open n files, or as many as the hard limit allows, and
    returns how many that are. Where the limit of another process cannot be
    changed, it is left as it is."""
    if not hasattr(resource, "prlimit"):
        return min(n, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    allowed = n if hard == resource.RLIM_INFINITY else min(n, hard)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (max(soft, allowed), hard))
    return allowed


class Program:
    """A long-running program. Its output goes to a file."""

    # How it is started. A session of its own: Ctrl-C at the tests reaches the
    # tests only, which then stop everything in order.
    how = {"start_new_session": True}

    def __init__(self, name: str, argv: list[str], log: pathlib.Path, cwd: pathlib.Path | None = None):
        self.name = name
        self.argv = argv
        self.log_file = log
        self.cwd = cwd
        # Added to the environment of each start.
        self.env: dict[str, str] = {}
        # A file descriptor; None: the log.
        self.stdout: int | None = None
        self.process: subprocess.Popen | None = None
        # Whether the test has asked it to end, or waited for its end.
        self.may_end = False

    def start(self) -> None:
        self.may_end = False
        with open(self.log_file, "ab") as log:
            log.write(("--- start: %s\n" % " ".join(self.argv)).encode())
            log.flush()
            self.process = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=log if self.stdout is None else self.stdout, stderr=log,
                cwd=self.cwd, env={**os.environ, **self.env}, **self.how,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self.process.pid

    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def signal(self, sig: int) -> None:
        if sig not in (signal.SIGHUP, signal.SIGSTOP, signal.SIGCONT):
            self.may_end = True
        self.process.send_signal(sig)

    def terminate(self) -> None:
        """SIGTERM: asks for a clean stop and does not wait for it."""
        self.signal(signal.SIGTERM)

    def wait(self, timeout: float = 20) -> int:
        """The exit status."""
        self.may_end = True
        return self.process.wait(timeout)

    def kill(self) -> None:
        """kill -9."""
        self.signal(signal.SIGKILL)
        self.process.wait(10)

    def freeze(self) -> None:
        """kill -STOP, and waits until it has really stopped."""
        self.signal(signal.SIGSTOP)
        deadline = time.monotonic() + 5
        while (state := self._state()) not in ("T", "") and time.monotonic() < deadline:
            time.sleep(0.005)
        assert state in ("T", ""), state

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def stop(self) -> None:
        """Whatever state it is in: gone afterwards."""
        if self.process is None:
            return
        if self.running():
            self.thaw()
            self.terminate()
            try:
                self.process.wait(3)
            except subprocess.TimeoutExpired:
                self.terminate()  # the second one means: now
                try:
                    self.process.wait(2)
                except subprocess.TimeoutExpired:
                    self.kill()

    def _state(self) -> str:
        """The letter in /proc; empty where there is none."""
        try:
            return pathlib.Path("/proc/%d/stat" % self.pid).read_text().rpartition(")")[2].split()[0]
        except OSError:
            return ""

    def rss_mib(self) -> float | None:
        """Resident memory; None where /proc does not tell."""
        try:
            for line in pathlib.Path("/proc/%d/status" % self.pid).read_text().splitlines():
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) / 1024
        except OSError:
            pass
        return None

    def trouble(self) -> str:
        """What no program may ever do, in words; empty when it has not."""
        if self.process is not None and not self.running() and not self.may_end:
            return "%s ended by itself with status %d" % (self.name, self.process.returncode)
        if found := re.search(r"(?m)^panic: .*|^fatal error: .*|.*after a panic.*|.*DATA RACE.*", self.log()):
            return "%s: %s" % (self.name, found[0])
        return ""

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def records(self) -> list[dict]:
        """Log records of this start (the programs log JSON here)."""
        records = []
        for line in self.log().rpartition("--- start: ")[2].splitlines()[1:]:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                records.append(record)
        return records


class Backend(Program):
    """An origin that names itself, in a process of its own."""

    def __init__(self, name: str, log: pathlib.Path):
        self.port = free_port()
        self.url = "http://127.0.0.1:%d" % self.port
        super().__init__(name, [sys.executable, "-B", "-m", "e2e.harness.backend", name, str(self.port)], log, cwd=ROOT)


class Plane(Program):
    """A control plane or data plane."""

    def stop(self) -> None:
        # At once: that they end cleanly when they are asked to is shown by the
        # scenarios about that, and takes time.
        if self.process is not None and self.running():
            self.kill()


class ControlPlane(Plane):
    """controlplane serve."""

    def __init__(self, name: str, config: pathlib.Path, log: pathlib.Path, *flags: str):
        self.config = config
        self.port = free_port()
        self.admin_port = free_port()
        self.server = "127.0.0.1:%d" % self.port
        # Added to the environment of client sub-commands.
        self.client_env: dict[str, str] = {}
        argv = [
            BUILD / "controlplane", "serve", "--listen", self.server, "--admin", "127.0.0.1:%d" % self.admin_port,
            "--log-format", "json", *flags, config,
        ]  # fmt: skip
        super().__init__(name, list(map(str, argv)), log)

    def cli(self, *args: str, timeout: float = 60) -> subprocess.CompletedProcess:
        """A client sub-command, asked of this control plane."""
        return run("controlplane", args[0], "--server", self.server, *args[1:], timeout=timeout, env=self.client_env)

    def status(self) -> dict:
        r = get(self.admin_port, "/api/v1/status")
        assert r.status == 200, (r.status, r.text)
        return json.loads(r.body)

    def data_planes(self) -> dict[str, dict]:
        """Rows of the status by id."""
        return {d["id"]: d for d in self.status()["dataplanes"]}

    def metrics(self) -> metrics.Metrics:
        r = get(self.admin_port, "/metrics")
        assert r.status == 200, (r.status, r.text)
        return metrics.parse(r.text)


class DataPlane(Plane):
    """dataplane."""

    def __init__(self, name: str, control_planes: list[str], state_dir: pathlib.Path, log: pathlib.Path, *flags: str):
        self.id = name
        self.state_dir = state_dir
        self.admin_port = free_port()
        argv = [BUILD / "dataplane"]
        if DRIVER:
            argv += ["--driver", DRIVER]
        for server in control_planes:
            argv += ["--controlplane", server]
        argv += [
            "--admin", "127.0.0.1:%d" % self.admin_port, "--id", name, "--state-dir", state_dir,
            "--address", "127.0.0.1", "--log-format", "json", *flags,
        ]  # fmt: skip
        super().__init__(name, list(map(str, argv)), log)

    def ready(self) -> bool:
        return get(self.admin_port, "/readyz").status == 200

    def metrics(self) -> metrics.Metrics:
        r = get(self.admin_port, "/metrics")
        assert r.status == 200, (r.status, r.text)
        return metrics.parse(r.text)

    def version(self) -> str:
        """Version it serves, from its own metrics; empty when it has none."""
        return next((v for v in self.metrics().labels("dataplane_config_info", "version")), "")
