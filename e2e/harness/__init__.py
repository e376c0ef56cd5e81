"""What the scenarios are written with.

Standard library only. Everything that waits has a deadline; nothing sleeps as
a way to synchronise; every process is stopped by its own id.
"""

from e2e.harness.client import Client, ConnectionLost, Response, exchange, get, send
from e2e.harness.load import Load
from e2e.harness.metrics import Metrics, parse
from e2e.harness.origin import Origin, Request, answer
from e2e.harness.ports import Reservation, free_port
from e2e.harness.processes import Backend, ControlPlane, DataPlane, Program, allow_files, run
from e2e.harness.scenario import Scenario, eventually

__all__ = [
    "Backend",
    "Client",
    "ConnectionLost",
    "ControlPlane",
    "DataPlane",
    "Load",
    "Metrics",
    "Origin",
    "Program",
    "Request",
    "Reservation",
    "Response",
    "Scenario",
    "allow_files",
    "answer",
    "eventually",
    "exchange",
    "free_port",
    "get",
    "parse",
    "run",
    "send",
]
