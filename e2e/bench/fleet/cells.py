"""What is measured."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from e2e.bench import procfs, targets
from e2e.bench.fleet.simulated import DataPlanes, Event, Stage
from e2e.bench.report import Finding
from e2e.bench.stats import median

# Changes that are measured, one after the other; the figures are medians. Of the largest
# cell, in which 15 GB are sent for each, it is one.
CHANGES = 3
LARGEST = 1_000_000_000
# What all data planes have applied after so many seconds, by (data planes, endpoints).
APPLIED = {(10_000, 1_000): 2.0, (10_000, 10_000): 3.0, (1_000, 100_000): 3.0}
# The most resident memory of the control plane, in MB.
MEMORY = {(10_000, 1_000): 500}


class Measurement(Protocol):
    name: str
    title: str
    # Data planes that it needs at once.
    planes: int

    def measure(self, tell: Callable[[str], None]) -> Finding: ...


@dataclasses.dataclass
class Change:
    """What one change came to; seconds, counted from when the change was accepted."""

    read: float  # from when the file was saved
    p50: float
    p99: float
    last: float
    control_plane: float  # CPU
    data_planes: float  # CPU, of all of them
    bytes_in: int
    deltas: int
    whole: int


COLUMNS = ["applied: p50 s", "p99 s", "last s", "CPU s", "simulator's", "MB sent", "KB each", "peak MB", "saved to accepted s"]


def change(stage: Stage, generation: int, only: int | None = None) -> Change:
    """Changes the table and waits until all data planes run it."""
    before, last = stage.usage(), stage.data_planes.last
    saved = stage.write(generation, only)
    event = stage.data_planes.event(saved)
    after = stage.usage()
    accepted = stage.accepted()
    return Change(
        read=accepted - saved, p50=event.p50 - accepted, p99=event.p99 - accepted, last=event.last - accepted,
        control_plane=after.control_plane - before.control_plane, data_planes=after.data_planes - before.data_planes,
        bytes_in=event.bytes_in - last.bytes_in, deltas=event.deltas - last.deltas, whole=event.whole - last.whole,
    )  # fmt: skip


def row(changes: Sequence[Change], planes: int, peak: int) -> list[str]:
    def of(field: str) -> float:
        return median([getattr(c, field) for c in changes])

    return [
        *("%.2f" % of(f) for f in ("p50", "p99", "last", "control_plane", "data_planes")),
        "%.1f" % (of("bytes_in") / 1e6), "%.1f" % (of("bytes_in") / 1e3 / planes), "%.0f" % (peak / 1e6), "%.2f" % of("read"),
    ]  # fmt: skip


class Everything:
    """Every endpoint changes: what is sent is the whole table."""

    def __init__(self, planes: int, endpoints: int):
        self.planes, self.endpoints = planes, endpoints
        self.name = "%dk-%dk" % (planes // 1000, endpoints // 1000)
        self.title = "%s data planes, %s endpoints, all of which change" % (format(planes, ","), format(endpoints, ","))

    def measure(self, tell: Callable[[str], None]) -> Finding:
        f = Finding(self.name, self.title, COLUMNS)
        with Stage(self.planes, self.endpoints) as stage:
            pid = stage.control_plane.pid
            joined = stage.joined
            f.notes.append("all connected at once: the last had the table after %.2f s" % (joined.last - stage.joining))
            f.notes.append("the control plane had %.0f MB then, at its peak %.0f MB" % (procfs.memory(pid) / 1e6, procfs.peak_rss(pid) / 1e6))
            procfs.reset_peak_rss(pid)
            changes = []
            for generation in range(1, 1 + (1 if self.planes * self.endpoints >= LARGEST else CHANGES)):
                tell("change %d" % generation)
                changes.append(change(stage, generation))
            peak = procfs.peak_rss(pid)
            f.notes += trouble(stage.data_planes)
        f.rows["change"] = row(changes, self.planes, peak)
        f.data = [dataclasses.asdict(c) for c in changes]
        limit = APPLIED.get((self.planes, self.endpoints))
        if limit:
            f.verdicts.append(targets.at_most("%s: all have applied, s" % self.name, median([c.last for c in changes]), limit))
        if most := MEMORY.get((self.planes, self.endpoints)):
            f.verdicts.append(targets.at_most("%s: peak memory of the control plane, MB" % self.name, peak / 1e6, most, "%.0f"))
        return f


def trouble(*groups: DataPlanes) -> list[str]:
    """Notes about what should not happen."""
    return [
        "%s: %d streams for %d data planes, %d tables refused" % (g.name, g.last.streams, g.count, g.last.refused)
        for g in groups
        if g.last.streams > g.count or g.last.refused
    ]


class One:
    """One endpoint changes."""

    name = "one"
    planes, endpoints = 1_000, 100_000
    title = "1,000 data planes, 100,000 endpoints, one of which changes"

    def measure(self, tell: Callable[[str], None]) -> Finding:
        f = Finding(self.name, self.title, COLUMNS, data={})
        found: dict[str, list[Change]] = {}
        for what, planes, deltas in (
            ("one data plane", 1, True), ("whole table", self.planes, False), ("delta", self.planes, True),
        ):  # fmt: skip
            with Stage(planes, self.endpoints, deltas) as stage:
                pid = stage.control_plane.pid
                procfs.reset_peak_rss(pid)
                found[what] = []
                for generation in range(1, CHANGES + 1):
                    tell("%s, change %d" % (what, generation))
                    found[what].append(change(stage, generation, only=self.endpoints // 2))
                f.rows[what] = row(found[what], planes, procfs.peak_rss(pid))
                f.notes += trouble(stage.data_planes)
        f.data = {what: [dataclasses.asdict(c) for c in changes] for what, changes in found.items()}

        def of(what: str, field: str) -> float:
            return median([getattr(c, field) for c in found[what]])

        alone = of("one data plane", "control_plane")
        f.notes += [
            "the first row is what reading the file, compiling and encoding the table cost, whoever gets it",
            "CPU µs of the control plane for each data plane beyond that: whole table %.0f, delta %.0f" % tuple(
                1e6 * (of(what, "control_plane") - alone) / self.planes for what in ("whole table", "delta")
            ),
            "of %d tables %d came as deltas" % (
                sum(c.deltas + c.whole for c in found["delta"]), sum(c.deltas for c in found["delta"])),
        ]  # fmt: skip
        f.verdicts += [
            targets.at_most("one of 100,000 endpoints changes: KB sent to each data plane", of("delta", "bytes_in") / 1e3 / self.planes, 2.0),
            targets.at_most("one of 100,000 endpoints changes: all have applied, s", of("delta", "last"), 1.0),
        ]
        return f


class Storm:
    """The control plane is killed and started again."""

    name = "storm"
    planes, endpoints = 10_000, 10_000
    title = "10,000 data planes come back after the control plane was killed and started again"

    def measure(self, tell: Callable[[str], None]) -> Finding:
        f = Finding(self.name, self.title, ["back: p50 s", "p99 s", "last s", "CPU s", "simulator's", "MB sent", "peak MB"], data={})
        for what, changed in (("same table", False), ("changed meanwhile", True)):
            with Stage(self.planes, self.endpoints) as stage:
                tell(what)
                last, before = stage.data_planes.last, stage.usage()
                stage.control_plane.kill()
                if changed:
                    stage.write(1)
                stage.control_plane.start()
                stage.listening()
                listening = time.monotonic()
                event = stage.data_planes.event(listening)
                after = stage.usage()
                pid = stage.control_plane.pid
                f.rows[what] = [
                    *("%.2f" % (t - listening) for t in (event.p50, event.p99, event.last)),
                    "%.2f" % after.control_plane, "%.2f" % (after.data_planes - before.data_planes),
                    "%.1f" % ((event.bytes_in - last.bytes_in) / 1e6), "%.0f" % (procfs.peak_rss(pid) / 1e6),
                ]  # fmt: skip
                f.notes.append("%s: %.2f s from the kill until it listened; %d streams were opened for %d data planes" % (
                    what, listening - before.at, event.streams - last.streams, self.planes))
        f.notes.append("a data plane waits for up to 5 s before it tries again")
        return f


class Frozen:
    """A part of the data planes is stopped while a change is sent."""

    name = "frozen"
    planes, endpoints = 1_000, 10_000
    frozen = 200
    title = "1,000 data planes, 200 of which are stopped (SIGSTOP), 10,000 endpoints, all of which change"

    def measure(self, tell: Callable[[str], None]) -> Finding:
        f = Finding(self.name, self.title, COLUMNS, data={})
        with Stage(self.planes - self.frozen, self.endpoints) as stage:
            others = DataPlanes(stage.control_plane.server, self.frozen, stage.folder, prefix="frozen")
            pid = stage.control_plane.pid
            others.start()
            try:
                others.event(0)
                generation = 0
                for what in ("nobody stopped", "200 stopped"):
                    tell(what)
                    procfs.reset_peak_rss(pid)
                    changes = []
                    if what != "nobody stopped":
                        others.freeze()
                    for _ in range(CHANGES):
                        generation += 1
                        changes.append(change(stage, generation))
                    f.rows[what] = row(changes, stage.planes, procfs.peak_rss(pid))
                    f.data[what] = [dataclasses.asdict(c) for c in changes]
                others.thaw()
                thawed = time.monotonic()
                event = others.event(thawed)
                f.notes.append("continued, the last of them had the table after %.2f s" % (event.last - thawed))
                f.notes += trouble(stage.data_planes)
            finally:
                others.stop()
        quiet, stopped = (median([c["last"] for c in f.data[what]]) for what in f.rows)
        f.verdicts.append(targets.at_most("200 of 1,000 stopped: time of the others, × with nobody stopped", stopped / quiet, 1.5))
        return f


ALL: list[Measurement] = [
    *(Everything(planes, endpoints) for planes in (1_000, 10_000) for endpoints in (1_000, 10_000, 100_000)),
    One(), Storm(), Frozen(),
]  # fmt: skip
