"""What a piece of work cost: CPU time of the proxy and the origin while it ran,
and of what has nothing to do with it."""

import dataclasses
import resource
import time
from collections.abc import Iterable

from e2e.bench import procfs
from e2e.bench.children import ALL


@dataclasses.dataclass
class Cost:
    """CPU seconds."""

    seconds: float
    proxy: procfs.CPU
    origin: procfs.CPU
    # Shares of the machine: used by processes that are not ours, and by other
    # machines on the same host.
    foreign: float
    stolen: float


class Meter:
    """Counts from its making on."""

    def __init__(self, proxy: int, origin: int, programs: Iterable[int]):
        self._pids = {p: procfs.CPU() for p in [proxy, origin, *programs]}
        self._proxy, self._origin = proxy, origin
        self._finished = _finished()
        self._machine = procfs.machine()
        self._pids = {p: procfs.cpu(p) for p in self._pids}
        self._start = time.monotonic()

    def stop(self) -> Cost:
        seconds = time.monotonic() - self._start
        used = {p: procfs.cpu(p) - before for p, before in self._pids.items()}
        machine = procfs.machine() - self._machine
        ours = sum(c.total for c in used.values()) + _finished() - self._finished
        capacity = seconds * len(ALL)
        return Cost(
            seconds, used[self._proxy], used[self._origin],
            foreign=max(0.0, machine.busy - ours) / capacity, stolen=machine.stolen / capacity,
        )  # fmt: skip


def _finished() -> float:
    """CPU seconds of this process and of its children that have ended: the load."""
    return sum(r.ru_utime + r.ru_stime for r in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
