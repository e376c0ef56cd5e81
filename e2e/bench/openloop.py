"""Runs the open-loop generator (openloop/main.go): a constant rate, each request
measured from the moment it was due."""

import json
import pathlib
import signal
import struct
import subprocess

from e2e.bench import children
from e2e.harness.processes import BUILD


class OpenLoop:
    """One run. Usable in a with statement; stopped at its end."""

    def __init__(
        self, url: str, seconds: float, rate: int, connections: int, cpus: frozenset[int], per_connection: int = 0,
        samples: pathlib.Path | None = None,
    ):  # fmt: skip
        self.seconds = seconds
        self.samples = samples
        argv = [
            BUILD / "bench" / "openloop", "--rate", rate, "--duration", "%gs" % seconds, "--connections", connections,
            "--per-connection", per_connection, *(["--samples", samples] if samples else []), url,
        ]  # fmt: skip
        self._process = subprocess.Popen(
            list(map(str, argv)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **children.how(cpus)
        )

    def __enter__(self) -> "OpenLoop":
        return self

    def __exit__(self, *_) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def stop(self) -> None:
        """No more requests; the result is that of those until now."""
        self._process.send_signal(signal.SIGINT)

    def result(self) -> dict:
        """Waits for the end. The keys are those of Result in openloop/main.go."""
        out, err = self._process.communicate(timeout=self.seconds + 30)
        if self._process.returncode != 0:
            raise RuntimeError("openloop ended with status %d: %s" % (self._process.returncode, err.strip()))
        return json.loads(out)

    def latencies(self) -> list[tuple[float, float]]:
        """For each request: when it was due (time.monotonic()) and its latency in
        microseconds; infinite when it was lost."""
        data = self.samples.read_bytes()
        return [(due / 1e9, ns / 1e3 if ns >= 0 else float("inf")) for due, ns in struct.iter_unpack("<qq", data)]
