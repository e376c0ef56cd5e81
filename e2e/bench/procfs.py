"""CPU time and memory of processes and of the machine, from /proc."""

import dataclasses
import os
import pathlib

TICKS = os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass
class CPU:
    """CPU seconds. The total is exact to the nanosecond; how it divides into
    user and system time is known to the tick."""

    total: float = 0.0
    user: float = 0.0

    def __add__(self, other: "CPU") -> "CPU":
        return CPU(self.total + other.total, self.user + other.user)

    def __sub__(self, other: "CPU") -> "CPU":
        return CPU(self.total - other.total, self.user - other.user)


def family(pid: int) -> list[int]:
    """The process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                children.setdefault(int(_stat(int(entry))[1]), []).append(int(entry))
            except OSError:
                continue  # it has ended
    pids = [pid]
    for p in pids:
        pids += children.get(p, [])
    return pids


def cpu(pid: int) -> CPU:
    """What the process and its descendants have used until now.

    The time of threads that have ended is in `stat` only. It is exact to a tick,
    so the time of the living threads is taken when it is more."""
    total = CPU()
    for p in family(pid):
        try:
            fields = _stat(p)
        except OSError:
            continue  # it has ended
        user, system = int(fields[11]) / TICKS, int(fields[12]) / TICKS
        threads = 0
        for task in _tasks(p):
            try:
                threads += int((task / "schedstat").read_text().split()[0])
            except (OSError, IndexError, ValueError):
                pass
        exact = threads / 1e9
        # Ended threads are the difference, when it is more than rounding.
        both = user + system
        used = both if both - exact > 3 / TICKS else exact
        total += CPU(used, used * user / both if both else 0.0)
    return total


def rss(pid: int) -> int:
    """Resident bytes of the process and its descendants."""
    return sum(_status(p, "VmRSS") for p in family(pid))


def peak_rss(pid: int) -> int:
    """The most resident bytes of one process since reset_peak_rss."""
    return _status(pid, "VmHWM")


def reset_peak_rss(pid: int) -> None:
    pathlib.Path("/proc/%d/clear_refs" % pid).write_text("5")


@dataclasses.dataclass
class Machine:
    """CPU seconds of all CPUs since the start of the machine."""

    busy: float
    stolen: float

    def __sub__(self, other: "Machine") -> "Machine":
        return Machine(self.busy - other.busy, self.stolen - other.stolen)


def machine() -> Machine:
    user, nice, system, _idle, _iowait, irq, softirq, stolen = map(int, pathlib.Path("/proc/stat").read_text().split(None, 9)[1:9])
    return Machine((user + nice + system + irq + softirq) / TICKS, stolen / TICKS)


def _stat(pid: int) -> list[str]:
    """The fields of stat from the third (state) on."""
    return pathlib.Path("/proc/%d/stat" % pid).read_text().rpartition(")")[2].split()


def _tasks(pid: int) -> list[pathlib.Path]:
    try:
        return list(pathlib.Path("/proc/%d/task" % pid).iterdir())
    except OSError:
        return []


def _status(pid: int, name: str) -> int:
    try:
        for line in pathlib.Path("/proc/%d/status" % pid).read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
