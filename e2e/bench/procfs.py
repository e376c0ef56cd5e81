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


Relatives = dict[int, list[int]]


def relatives() -> Relatives:
    """The children of each process."""
    children: Relatives = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                children.setdefault(int(_stat(int(entry))[1]), []).append(int(entry))
            except OSError:
                continue  # it has ended
    return children


def family(pid: int, of: Relatives | None = None) -> list[int]:
    """The process and all that descend from it."""
    of = relatives() if of is None else of
    pids = [pid]
    for p in pids:
        pids += of.get(p, [])
    return pids


def cpu(pid: int, of: Relatives | None = None) -> CPU:
    """What the process and its descendants have used until now.

    The time of threads that have ended is in `stat` only, which is exact to a
    tick, as is that of children that have; that of the others is in `schedstat`."""
    total = CPU()
    for p in family(pid, of):
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
        exact, both = threads / 1e9, user + system
        # More than rounding is the time of ended threads.
        used = both if both - exact > 3 / TICKS else exact
        total += CPU(used, used * user / both if both else 0.0)
        ended_user, ended_system = int(fields[13]) / TICKS, int(fields[14]) / TICKS
        total += CPU(ended_user + ended_system, ended_user)
    return total


def memory(pid: int) -> int:
    """Resident bytes of the process and its descendants; what they share, and what
    they share with others, is counted in shares (PSS)."""
    total = 0
    for p in family(pid):
        try:
            total += _kilobytes(pathlib.Path("/proc/%d/smaps_rollup" % p).read_text(), "Pss")
        except OSError:
            continue  # it has ended
    return total


def peak_rss(pid: int) -> int:
    """The most resident bytes of one process since reset_peak_rss."""
    return _kilobytes(pathlib.Path("/proc/%d/status" % pid).read_text(), "VmHWM")


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


def _kilobytes(text: str, name: str) -> int:
    """The value of a line "name:  123 kB", in bytes."""
    for line in text.splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise ValueError("no %s in %r" % (name, text[:200]))
