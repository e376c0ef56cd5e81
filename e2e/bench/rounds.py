"""Rounds: in each, every proxy does the work of a cell once, the first one last
the next time. What the machine does meanwhile hits all of them alike, and a round
in which it did too much else is run again, but not for ever."""

import dataclasses
from collections.abc import Callable

from e2e.bench import procfs
from e2e.bench.cells import Cell, Outcome
from e2e.bench.cost import Cost
from e2e.bench.stage import Stage
from e2e.bench.stats import median, spread

# Shares of the machine that others may use in a round that counts.
MOST_FOREIGN = 0.05
MOST_STOLEN = 0.02
# How far the middle half of the rounds may lie apart before more are run.
MOST_SPREAD = 0.10


@dataclasses.dataclass
class Sample:
    """One run of one proxy."""

    outcome: Outcome
    cost: Cost
    rss: int

    @property
    def micros(self) -> float:
        """CPU microseconds of the proxy per request."""
        return 1e6 * self.cost.proxy.total / max(self.outcome.requests, 1)

    @property
    def user_micros(self) -> float:
        return 1e6 * self.cost.proxy.user / max(self.outcome.requests, 1)

    @property
    def origin_micros(self) -> float:
        return 1e6 * self.cost.origin.total / max(self.outcome.requests, 1)

    @property
    def to_origin(self) -> float:
        """CPU of the proxy relative to that of the origin: what is left of a
        machine that runs slower or faster for a while."""
        return self.cost.proxy.total / self.cost.origin.total if self.cost.origin.total else 0.0

    @property
    def rate(self) -> float:
        return self.outcome.requests / self.outcome.seconds if self.outcome.seconds else 0.0

    @property
    def disturbed(self) -> bool:
        return self.cost.foreign > MOST_FOREIGN or self.cost.stolen > MOST_STOLEN


Round = dict[str, Sample]


@dataclasses.dataclass
class Result:
    """A measured cell. rounds are those that count."""

    cell: Cell
    rounds: list[Round]
    # Rounds that were run again, and why the cell is not to be trusted in spite
    # of them; empty when it is.
    repeated: int = 0
    disturbed: str = ""

    def values(self, name: str, of: Callable[[Sample], float]) -> list[float]:
        return [of(r[name]) for r in self.rounds if name in r]

    def median(self, name: str, of: Callable[[Sample], float]) -> float:
        return median(self.values(name, of))

    @property
    def names(self) -> list[str]:
        return list(self.rounds[0]) if self.rounds else []

    @property
    def errors(self) -> dict[str, str]:
        """By proxy: the first thing that went wrong."""
        found: dict[str, str] = {}
        for r in self.rounds:
            for name, sample in r.items():
                if sample.outcome.errors:
                    found.setdefault(name, sample.outcome.errors)
                elif not sample.outcome.requests:
                    found.setdefault(name, "no request was answered")
        return found


def measure(stage: Stage, cell: Cell, rounds: int, seconds: int, tell: Callable[[str], None]) -> Result:
    names = list(stage.proxies)
    for name in names:  # connections to backends are made, memory is allocated
        cell.load(stage, stage.proxies[name], 1)
    done: list[Round] = []
    quiet: list[Round] = []
    while len(quiet) < rounds or _unsteady(quiet):
        if len(done) == 2 * rounds:
            break
        order = names[len(done) % len(names) :] + names[: len(done) % len(names)]
        this = {name: _run(stage, cell, name, seconds) for name in order}
        this = {name: this[name] for name in names}
        done.append(this)
        if not any(s.disturbed for s in this.values()):
            quiet.append(this)
        tell("round %d: %s" % (len(done), ", ".join("%s %.1f" % (name, this[name].micros) for name in names)))
    if len(quiet) >= rounds:
        unsteady = _unsteady(quiet)
        return Result(cell, quiet, len(done) - rounds, "rounds differ" if unsteady else "")
    worst = max(s.cost.foreign + s.cost.stolen for r in done for s in r.values())
    return Result(cell, done, len(done) - rounds, "other work took up to %.0f %% of the machine" % (100 * worst))


def _unsteady(rounds: list[Round]) -> bool:
    return any(spread([r[name].to_origin for r in rounds]) > MOST_SPREAD for name in rounds[0])


def _run(stage: Stage, cell: Cell, name: str, seconds: int) -> Sample:
    proxy = stage.proxies[name]
    meter = stage.meter(proxy)
    outcome = cell.load(stage, proxy, seconds)
    return Sample(outcome, meter.stop(), procfs.rss(proxy.pid))
