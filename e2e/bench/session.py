"""A session of the benchmark's own, with more than its share of the CPUs."""

import ctypes
import os
import pathlib
import signal
import sys
import traceback
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def run(main: Callable[[], int]) -> int:
    """Runs main in a child that leads a session, and returns its exit status.

    Linux shares out CPU time by session first (autogroup), so niceness alone does
    not keep a busy shell next door out of the measurement. Ctrl-C and SIGTERM are
    passed on; if this process is killed, the child is ended."""
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        os._exit(_lead(main, parent))
    for s in (signal.SIGINT, signal.SIGTERM):
        signal.signal(s, lambda *_: os.kill(child, signal.SIGTERM))
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _lead(main: Callable[[], int], parent: int) -> int:
    """What the child does; its exit status."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            return 1  # it was killed just before
        os.setsid()
        signal.signal(signal.SIGTERM, _interrupt)
        signal.signal(signal.SIGINT, _interrupt)
        _preferred()
        return main()
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _interrupt(*_) -> None:
    # A second one must not break the cleaning up that the first one started.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _preferred() -> None:
    try:
        pathlib.Path("/proc/self/autogroup").write_text("-20")
    except OSError:
        pass  # not root, or no such thing: what others do is seen as a disturbance
