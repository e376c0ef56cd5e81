"""What the figures were measured on, and with."""

import datetime
import os
import pathlib
import platform
import re
import subprocess
from collections.abc import Sequence

from e2e.bench.children import ALL
from e2e.harness.processes import BUILD


# What `make bench` compares.
PROXIES = [[str(BUILD / "dataplane"), "--version"], ["nginx", "-v"], ["haproxy", "-v"], ["wrk", "-v"]]


def describe(command: str, programs: Sequence[list[str]] = PROXIES) -> list[str]:
    """Lines for the head of the report."""
    return [
        "date      %s" % datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "machine   %s, %d CPUs, %.0f GB, %s %s" % (_cpu(), len(ALL), _memory(), platform.system(), platform.release()),
        "versions  %s" % ", ".join(map(_first, programs)),
        "command   %s" % command,
    ]


def _cpu() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _memory() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def _first(argv: list[str]) -> str:
    """The first line that a program prints."""
    try:
        p = subprocess.run(argv, capture_output=True, text=True, timeout=10, stdin=subprocess.DEVNULL)
    except OSError:
        return "no " + argv[0]
    lines = (p.stdout + p.stderr).strip().splitlines()
    # Without the copyright and the address that follow the version.
    return re.sub(r"( \[epoll\])? Copyright.*| - https?:.*|nginx version: ", "", lines[0]) if lines else argv[0]
