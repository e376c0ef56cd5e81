"""What `make run` runs: demo backends, one control plane, two data planes.

Starts them in order, waits until they serve, prints what to try, and stops
everything on Ctrl-C. The programs log into build/demo/. Standard library only.
"""

import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
DEMO = BUILD / "demo"

BACKENDS = [5000, 5001, 5002, 5003]
CONTROL_PLANE, CONTROL_PLANE_ADMIN = 18000, 18080
DATA_PLANES = {"dp1": 19000, "dp2": 19001}
# Each listens on a port of its own, as on hosts of their own. If they shared one,
# the kernel would deal connections to either, whose cycles do not begin with the
# same backend, and the first request could see the second one.
PORT_OF_SECOND = 8001


asked_to_stop = threading.Event()


class Stop(Exception):
    """Why the demo ends; empty when it was asked to."""


def main() -> int:
    config = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "configs/demo.yaml")
    children: dict[str, subprocess.Popen] = {}
    # A flag rather than an exception: a child that has just been started must
    # not be forgotten between its start and its entry in children.
    signal.signal(signal.SIGINT, lambda *_: asked_to_stop.set())
    signal.signal(signal.SIGTERM, lambda *_: asked_to_stop.set())
    status = 0
    try:
        # The only thing needed from the file; the control plane checks it all.
        port = proxy_port(config)
        check_free([*BACKENDS, CONTROL_PLANE, CONTROL_PLANE_ADMIN, *DATA_PLANES.values(), port, PORT_OF_SECOND])
        # A demo starts from nothing, not from the tables of the one before.
        shutil.rmtree(DEMO, ignore_errors=True)
        DEMO.mkdir(parents=True)
        start(children, "backends", sys.executable, "-B", ROOT / "e2e" / "demo_backends.py", *BACKENDS)
        start(children, "controlplane", BUILD / "controlplane", config)
        for backend in BACKENDS:
            wait_for(children, "http://127.0.0.1:%d/" % backend)
        wait_for(children, "http://127.0.0.1:%d/readyz" % CONTROL_PLANE_ADMIN)
        for name, admin in DATA_PLANES.items():
            own_port = ["--port", PORT_OF_SECOND] if name == "dp2" else []
            start(
                children, name, BUILD / "dataplane", "--id", name, "--admin", "127.0.0.1:%d" % admin,
                "--state-dir", DEMO / name, "--drain-timeout", "3s", *own_port,
            )  # fmt: skip
            # One after the other: the first to come begins with the first URL.
            wait_for(children, "http://127.0.0.1:%d/readyz" % admin)
        print(WELCOME.format(config=config, port=port, second=PORT_OF_SECOND), flush=True)
        watch(children)
    except Stop as reason:
        if str(reason):
            print("\nmake run: %s" % reason, file=sys.stderr)
            status = 1
    finally:
        shut_down(children)
    return status


WELCOME = """
One control plane watches {config}; two data planes serve it, on ports {port} and {second}.
Try, in another terminal:

  1. Two backends take turns:
         curl http://localhost:{port}/index; curl http://localhost:{port}/index

  2. Edit {config}, save it, and ask again: the fleet follows within half a second.

  3. Which data plane runs what:
         ./build/controlplane status

Logs are in build/demo/. Ctrl-C stops everything.
"""


def proxy_port(config: pathlib.Path) -> int:
    try:
        match = re.search(r"^port:\s*(\d+)", config.read_text(), re.MULTILINE)
    except OSError as e:
        raise Stop("%s: %s" % (config, e.strerror)) from e
    if match is None:
        raise Stop("%s: no port" % config)
    return int(match[1])


def check_free(ports: list[int]) -> None:
    busy = []
    for port in ports:
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                busy.append(str(port))
    if busy:
        raise Stop(
            "port %s of this machine is in use by another program (is another make run still going?).\n"
            "See who it is with: ss -ltnp" % ", ".join(busy)
        )


def start(children: dict[str, subprocess.Popen], name: str, *argv) -> None:
    with open(DEMO / (name + ".log"), "wb") as log:
        # A session of its own, so that Ctrl-C reaches this program only, which
        # then stops the others in order.
        children[name] = subprocess.Popen(
            list(map(str, argv)), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


def wait_for(children: dict[str, subprocess.Popen], url: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        check(children)
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            asked_to_stop.wait(0.05)
    raise Stop("%s was not ready within 30 s; see build/demo/" % url)


def check(children: dict[str, subprocess.Popen]) -> None:
    if asked_to_stop.is_set():
        raise Stop
    for name, child in children.items():
        if child.poll() is not None:
            log = DEMO / (name + ".log")
            lines = log.read_text(errors="replace").splitlines()[-15:]
            raise Stop("%s has ended with status %d. The end of %s:\n%s" % (name, child.returncode, log, "\n".join(lines)))


def watch(children: dict[str, subprocess.Popen]) -> None:
    while True:
        check(children)
        asked_to_stop.wait(0.2)


def shut_down(children: dict[str, subprocess.Popen]) -> None:
    """Data planes first, so that nothing in flight loses its backend."""
    names = [n for n in children if n in DATA_PLANES] + [n for n in children if n not in DATA_PLANES]
    if names:
        print("\nstopping %s" % ", ".join(names), flush=True)
    for group in ([n for n in names if n in DATA_PLANES], [n for n in names if n not in DATA_PLANES]):
        for name in group:
            if children[name].poll() is None:
                children[name].terminate()
        for name in group:
            try:
                children[name].wait(10)
            except subprocess.TimeoutExpired:
                children[name].kill()
                children[name].wait()


if __name__ == "__main__":
    sys.exit(main())
