"""Rounds: in each, everything that is compared runs once, in an order that moves
on. What the machine does meanwhile hits all of them alike, and a round in which
it did too much else is run again, but not for ever."""

import dataclasses
from collections.abc import Callable

from e2e.bench.cost import Cost
from e2e.bench.stats import median, spread

# How far the middle half of the rounds may lie apart before more are run.
MOST_SPREAD = 0.10


@dataclasses.dataclass
class Outcome:
    """What the clients saw. Latencies are in microseconds; p999 is 0 where it is
    not known."""

    requests: int
    seconds: float
    p50: float
    p99: float
    p999: float = 0.0
    errors: str = ""


@dataclasses.dataclass
class Sample:
    """One run of one proxy."""

    outcome: Outcome
    cost: Cost
    memory: int

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


Round = dict[str, Sample]


@dataclasses.dataclass
class Result:
    """The rounds that count."""

    rounds: list[Round]
    # Rounds that were run again, and why the others are not to be trusted in spite
    # of that; empty when they are.
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


    @property
    def notes(self) -> list[str]:
        """For the report."""
        notes = []
        if self.repeated:
            notes.append("%d of %d rounds were run again" % (self.repeated, self.repeated + len(self.rounds)))
        if self.disturbed:
            notes.append("DISTURBED: " + self.disturbed)
        return notes


def measure(names: list[str], run: Callable[[str], Sample], rounds: int, tell: Callable[[str], None]) -> Result:
    """Runs every name in so many undisturbed rounds, and at most twice as many."""
    done: list[Round] = []
    quiet: list[Round] = []
    while len(done) < 2 * rounds and (len(quiet) < rounds or _unsteady(quiet)):
        turn = len(done) % len(names)
        samples = {name: run(name) for name in names[turn:] + names[:turn]}
        this = {name: samples[name] for name in names}
        done.append(this)
        if not any(s.cost.disturbed for s in this.values()):
            quiet.append(this)
        tell("round %d, CPU µs/request: %s" % (len(done), ", ".join("%s %.1f" % (n, s.micros) for n, s in this.items())))
    if len(quiet) >= rounds:
        return Result(quiet, len(done) - len(quiet), "rounds differ much" if _unsteady(quiet) else "")
    kept = sorted(done, key=_disturbance)[:rounds]
    return Result(
        kept, len(done) - len(kept),
        "only %d of %d rounds were quiet; in those shown other work took up to %.0f %% of the machine"
        % (len(quiet), len(done), 100 * _disturbance(kept[-1])),
    )  # fmt: skip


def _disturbance(r: Round) -> float:
    """The largest share of the machine that others had."""
    return max(s.cost.foreign + s.cost.stolen for s in r.values())


def _unsteady(rounds: list[Round]) -> bool:
    return any(spread([r[name].to_origin for r in rounds]) > MOST_SPREAD for name in rounds[0])
