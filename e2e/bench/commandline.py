"""What the command lines of the benchmarks have in common."""

import argparse
from collections.abc import Sequence
from typing import Protocol, TypeVar

from e2e.bench import report


class Cell(Protocol):
    """What can be chosen by its name."""

    name: str
    title: str


C = TypeVar("C", bound=Cell)


def parser(program: str, description: str, cells: Sequence[Cell]) -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog=program, description=description, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="cells:\n" + report.table([[c.name, c.title] for c in cells]),
    )  # fmt: skip
    p.add_argument("--cells", default="", help="what to measure, comma-separated; all if empty")
    p.add_argument("--json", metavar="FILE", help="write everything that was measured to FILE")
    return p


def chosen(p: argparse.ArgumentParser, names: str, cells: Sequence[C]) -> list[C]:
    """The cells that --cells names; all if it names none."""
    known = {c.name: c for c in cells}
    wanted = [n for n in names.split(",") if n] or list(known)
    for n in wanted:
        if n not in known:
            p.error("no cell %r; there are: %s" % (n, ", ".join(known)))
    return [known[n] for n in wanted]
