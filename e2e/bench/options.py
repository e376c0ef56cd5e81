"""What the command line decides."""

import dataclasses
from collections.abc import Callable

from e2e.bench.proxies import Proxy


@dataclasses.dataclass(frozen=True)
class Options:
    rounds: int
    seconds: int
    # What takes part, ours first.
    kinds: list[type[Proxy]]
    # Takes lines of progress.
    tell: Callable[[str], None]
