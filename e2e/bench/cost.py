"""What a piece of work cost: CPU time of the proxy and the origin while it ran,
and of what has nothing to do with it."""

import dataclasses
import resource
import time
from collections.abc import Callable, Iterable

from e2e.bench import procfs
from e2e.bench.children import ALL

# Shares of the machine that others may use while something is measured.
MOST_FOREIGN = 0.05
MOST_STOLEN = 0.02


@dataclasses.dataclass
class Cost:
    """CPU time; the shares are of the machine."""

    seconds: float
    proxy: procfs.CPU
    origin: procfs.CPU
    # Used by processes that are not ours, and by other machines on the same host.
    foreign: float
    stolen: float

    @property
    def disturbed(self) -> bool:
        return self.foreign > MOST_FOREIGN or self.stolen > MOST_STOLEN


class Meter:
    """Counts from its making on. own are all processes of the benchmark that run
    meanwhile, beside the load."""

    def __init__(self, proxy: int, origin: int, own: Iterable[int]):
        self._proxy, self._origin, self._own = proxy, origin, {proxy, origin, *own}
        self._finished = _finished()
        self._machine = procfs.machine()
        self._before = self._now()
        self._start = time.monotonic()

    def _now(self) -> dict[int, procfs.CPU]:
        relatives = procfs.relatives()
        return {p: procfs.cpu(p, relatives) for p in self._own}

    def stop(self) -> Cost:
        seconds = time.monotonic() - self._start
        used = {p: after - self._before[p] for p, after in self._now().items()}
        machine = procfs.machine() - self._machine
        own = sum(c.total for c in used.values()) + _finished() - self._finished
        capacity = seconds * len(ALL)
        return Cost(
            seconds, used[self._proxy], used[self._origin],
            foreign=max(0.0, machine.busy - own) / capacity, stolen=machine.stolen / capacity,
        )  # fmt: skip


def _finished() -> float:
    """CPU seconds of this process and of its children that have ended: the load."""
    return sum(r.ru_utime + r.ru_stime for r in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def quietly(meter: Callable[[], Meter], run: Callable[[], object], attempts: int = 3) -> str:
    """Runs until the machine did nothing else meanwhile, but not for ever. Returns
    a note for the report when it did all the same, else nothing."""
    for _ in range(attempts):
        m = meter()
        run()
        cost = m.stop()
        if not cost.disturbed:
            return ""
    return "DISTURBED: other work took %.0f %% of the machine in the last of %d attempts" % (100 * (cost.foreign + cost.stolen), attempts)
