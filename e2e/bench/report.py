"""What was found, as text."""

import dataclasses
import re
from collections.abc import Sequence

from e2e.bench.targets import Verdict


@dataclasses.dataclass
class Finding:
    """What one cell found: a row of figures for each proxy."""

    name: str
    title: str
    columns: list[str]
    rows: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    verdicts: list[Verdict] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    # By proxy: why its figures mean nothing.
    errors: dict[str, str] = dataclasses.field(default_factory=dict)
    # Everything that was measured, for --json.
    data: object = None


_NUMBER = re.compile(r"[≤≥]? ?[\d.,]+|inf|-|")


def table(rows: Sequence[Sequence[str]], indent: str = "  ") -> str:
    """Columns as wide as their widest cell; numbers to the right, the rest to the
    left. The first row is the head."""
    lines = [indent] * len(rows)
    for column in range(max(map(len, rows))):
        cells = [r[column] if column < len(r) else "" for r in rows]
        width = max(map(len, cells))
        right = all(_NUMBER.fullmatch(c) for c in cells[1:])
        for i, c in enumerate(cells):
            lines[i] += (c.rjust(width) if right else c.ljust(width)) + "  "
    return "\n".join(line.rstrip() for line in lines)


def figures(finding: Finding) -> str:
    lines = ["%s: %s" % (finding.name, finding.title)]
    if finding.rows:
        lines.append(table([["", *finding.columns], *([name, *row] for name, row in finding.rows.items())]))
    lines += ["  %s: FAILED: %s" % (name, why) for name, why in finding.errors.items()]
    lines += ["  " + note for note in finding.notes]
    return "\n".join(lines)


def verdicts(findings: Sequence[Finding]) -> str:
    rows = [["", "measured", "target", ""]]
    for f in findings:
        for v in f.verdicts:
            rows.append([v.what, v.value, v.target, "met" if v.met else "missed"])
    if len(rows) == 1:
        return "  nothing that has a target was measured"
    return table(rows)
