"""Everything that can be measured, in the order of the report: what `CELLS=`
names."""

from typing import Protocol

from e2e.bench.calls import Calls
from e2e.bench.cells import CELLS
from e2e.bench.idle import Idle
from e2e.bench.options import Options
from e2e.bench.reloads import Reloads
from e2e.bench.report import Finding
from e2e.bench.table import Change, Table
from e2e.bench.work import Work


class Measurement(Protocol):
    name: str
    title: str

    def measure(self, options: Options) -> Finding: ...


ALL: list[Measurement] = [*map(Work, CELLS), Calls(), Idle(), Reloads(), Table(), Change()]
