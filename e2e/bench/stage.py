"""An origin and proxies in front of it, all running, for one cell."""

import contextlib
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Sequence

from e2e.bench import procfs
from e2e.bench.children import ALL
from e2e.bench.cost import Meter
from e2e.bench.origin import Origin
from e2e.bench.proxies import PATHS, Place, Proxy
from e2e.bench.rounds import Outcome, Sample


class Stage:
    """Used in a with statement. With one thread the proxies are alone on one CPU,
    and the origin and the load on another; else everybody may run everywhere."""

    def __init__(self, kinds: Iterable[type[Proxy]], threads: int = 1, paths: Sequence[str] = PATHS):
        self.threads = threads
        cpus = sorted(ALL)
        if threads == 1 and len(cpus) > 1:
            self.proxy_cpus, self.other_cpus = frozenset(cpus[:1]), frozenset(cpus[1:2])
        else:
            self.proxy_cpus = self.other_cpus = ALL
        self._kinds = list(kinds)
        self._paths = paths
        self._cleanup = contextlib.ExitStack()
        self.proxies: dict[str, Proxy] = {}

    def __enter__(self) -> "Stage":
        with contextlib.ExitStack() as stack:
            self.folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
            # nginx workers that run as somebody else look into it.
            self.folder.chmod(0o755)
            self.origin = Origin(self.folder / "origin", self.other_cpus)
            stack.callback(self.origin.stop)
            self.origin.start()
            place = Place(self.folder, self.origin.addresses, self.threads, self.proxy_cpus, self.other_cpus, self._paths)
            for kind in self._kinds:
                proxy = kind(place)
                stack.callback(proxy.stop)
                proxy.start()
                self.proxies[proxy.name] = proxy
            self._cleanup = stack.pop_all()
        return self

    def __exit__(self, *exc) -> None:
        self._cleanup.__exit__(*exc)

    def meter(self, proxy: Proxy) -> Meter:
        """Counts what this proxy costs from now on."""
        return Meter(proxy.pid, self.origin.pid, [pid for p in self.proxies.values() for pid in p.pids])

    def sample(self, proxy: Proxy, load: Callable[[], Outcome]) -> Sample:
        """Runs the load and tells what it cost."""
        meter = self.meter(proxy)
        outcome = load()
        return Sample(outcome, meter.stop(), procfs.memory(proxy.pid))
