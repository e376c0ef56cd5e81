"""How the benchmark's processes are started: in its session, on chosen CPUs."""

import ctypes
import os
import pathlib
import signal

from e2e.harness import Program

_libc = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1

# The CPUs that the benchmark may use. (Systems without the call can only run its
# unit tests.)
ALL = frozenset(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))


def how(cpus: frozenset[int] = ALL, idle: bool = False) -> dict:
    """Arguments of subprocess.Popen.

    The child stays in the session of the benchmark, because the scheduler shares
    out CPU time by session, but leaves its process group, so that Ctrl-C reaches
    the benchmark only. When the benchmark is killed, the kernel ends the child.
    With idle it runs when nobody else on its CPUs wants to."""

    def prepare():
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        os.sched_setaffinity(0, cpus)
        if idle:
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))

    return {"process_group": 0, "preexec_fn": prepare}


class Child(Program):
    """A program of the benchmark."""

    def __init__(self, name: str, argv: list, folder: pathlib.Path, cpus: frozenset[int] = ALL):
        super().__init__(name, list(map(str, argv)), folder / (name + ".log"))
        self.how = how(cpus)
