"""The proxies that are compared, each configured as well as we know how to.

All do the same: requests for the exact path /bench (and /64k, /1m) go in turn to
two backends over connections that are kept. None writes an access log, none has
a limit in the way. Ours adds Via and the X-Forwarded fields, checks, counts and
times everything as always; the others are not asked to.
"""

import dataclasses
import pathlib
import signal
import time
from collections.abc import Sequence

from e2e.bench import children
from e2e.bench.children import Child
from e2e.bench.origin import FILES, nginx_user
from e2e.bench.targets import BEFORE, OURS, RELAY
from e2e.harness import ControlPlane, DataPlane, eventually, free_port, get
from e2e.harness.processes import BUILD
from e2e.harness.scenario import write

PATHS = ["/bench", *FILES]

# Connections that each takes from clients. HAProxy wants 2.5 files for each.
CLIENTS = 7000


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a proxy runs, and what for."""

    folder: pathlib.Path
    backends: list[str]
    threads: int
    # The proxy's CPUs, and those of what stands around it.
    cpus: frozenset[int]
    others: frozenset[int]
    # What is forwarded: exact paths, all to the same backends.
    paths: Sequence[str] = tuple(PATHS)


class Proxy:
    """One proxy. name is the column of the report."""

    name = ""
    # The program that must be installed for it, if any.
    needs = ""

    def __init__(self, place: Place):
        self.place = place
        self.folder = place.folder / self.name.replace(", ", "-")
        self.folder.mkdir(parents=True)
        self.port = free_port()

    @classmethod
    def fits(cls, measurement: str) -> bool:
        """Whether it has something to say there."""
        return True

    @property
    def program(self) -> Child | DataPlane:
        """What is measured."""
        raise NotImplementedError

    @property
    def pid(self) -> int:
        return self.program.pid

    @property
    def pids(self) -> list[int]:
        """Everything that runs for it, without descendants."""
        return [self.pid]

    def configure(self, paths: Sequence[str]) -> None:
        """Writes the configuration, which forwards these paths."""

    def change(self, paths: Sequence[str]) -> None:
        """Has it change the configuration while it runs."""
        raise NotImplementedError

    def wait_changed(self, times: int) -> None:
        """Waits until so many changes have been made, if it can be told."""

    def start(self) -> None:
        self.configure(self.place.paths)
        self.program.start()

        def answers():
            if not self.program.running():
                raise RuntimeError("%s has ended:\n%s" % (self.name, self.program.log()[-2000:]))
            return get(self.port, self.place.paths[-1]).status == 200

        eventually(answers, "%s answers" % self.name, within=60)

    def stop(self) -> None:
        self.program.stop()


class Ours(Proxy):
    name = OURS
    # The program, and flags for it beyond those that every measurement needs.
    binary = BUILD / "dataplane"
    flags: Sequence[str] = ()

    def __init__(self, place: Place):
        super().__init__(place)
        self.control_plane = ControlPlane("controlplane", self.folder / "config.yaml", self.folder / "controlplane.log")
        self.data_plane = DataPlane(
            "dataplane", [self.control_plane.server], self.folder / "state", self.folder / "dataplane.log",
            "--threads", str(place.threads), "--drain-timeout", "1s", *self.flags,
        )  # fmt: skip
        self.data_plane.argv[0] = str(self.binary)
        self.data_plane.how = children.how(place.cpus)
        # It only works when the configuration changes, and is not what is measured: load
        # and origin, on the same CPU, are not to be slower for it.
        self.control_plane.how = children.how(place.others, idle=True)

    @property
    def program(self) -> DataPlane:
        return self.data_plane

    @property
    def pids(self) -> list[int]:
        return [self.data_plane.pid, self.control_plane.pid]

    def configure(self, paths: Sequence[str]) -> None:
        write(self.control_plane.config, self.text(paths))

    def text(self, paths: Sequence[str], weight: int = 1) -> str:
        """The configuration. weight is that of every backend of every tenth
        endpoint: something to change."""
        lines = ["port: %d" % self.port, "limits: {maxConnections: %d, idleTimeout: 1h}" % CLIENTS, "endpoints:"]
        plain = ["  - http://" + b for b in self.place.backends]
        weighted = plain if weight == 1 else ["  - {url: 'http://%s', weight: %d}" % (b, weight) for b in self.place.backends]
        for i, path in enumerate(paths):
            lines += ["- from: " + path, "  pool:", *(plain if i % 10 else weighted)]
        return "\n".join(lines) + "\n"

    def change(self, paths: Sequence[str]) -> None:
        # Nobody asks whether it has been applied, which would take a CPU from the others.
        self.configure(paths)
        self.control_plane.signal(signal.SIGHUP)

    def wait_changed(self, times: int) -> None:
        def applied():
            # The first one is not a change.
            return sum(r["msg"] == "serving" for r in self.data_plane.records()) > times

        eventually(applied, "%d changes are applied" % times)

    def start(self) -> None:
        self.configure(self.place.paths)
        self.control_plane.start()
        super().start()

    def stop(self) -> None:
        self.data_plane.stop()
        self.control_plane.stop()


class Before(Ours):
    """Another build of ours, to compare with."""

    name = BEFORE


class Nginx(Proxy):
    name = needs = "nginx"

    CONF = """
{user}
worker_processes {threads};
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  keepalive_timeout 1h; keepalive_requests 1000000000;
  client_body_buffer_size 32k;
  proxy_http_version 1.1; proxy_set_header Connection "";
  proxy_buffer_size 32k; proxy_buffers 8 32k; proxy_busy_buffers_size 64k; proxy_max_temp_file_size 0;
  upstream backends {{
    {servers}
    keepalive 4096; keepalive_requests 1000000000; keepalive_timeout 1h;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096{listen};
    location / {{ return 404; }}
    {locations}
  }}
}}
"""

    def __init__(self, place: Place):
        super().__init__(place)
        self.conf = self.folder / "nginx.conf"
        argv = ["nginx", "-e", self.folder / "error.log", "-c", self.conf]
        self._program = Child("nginx", argv, self.folder, place.cpus)

    @property
    def program(self) -> Child:
        return self._program

    def configure(self, paths: Sequence[str]) -> None:
        self.conf.write_text(
            self.CONF.format(
                user=nginx_user(), threads=self.place.threads, folder=self.folder, port=self.port,
                # With several workers each has a queue of its own, or one gets all.
                listen=" reuseport" if self.place.threads > 1 else "",
                servers=" ".join("server %s max_fails=0;" % b for b in self.place.backends),
                locations="\n    ".join("location = %s { proxy_pass http://backends; }" % p for p in paths),
            )  # fmt: skip
        )

    def change(self, paths: Sequence[str]) -> None:
        self.configure(paths)
        self.program.signal(signal.SIGHUP)


class HAProxy(Proxy):
    name = needs = "haproxy"

    CONF = """
global
  nbthread {threads}
  maxconn {clients}
  tune.bufsize 32768
  stats socket {folder}/admin.sock level admin expose-fd listeners
defaults
  mode http
  option splice-response
  http-reuse always
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout http-keep-alive 1h
frontend in
  bind 127.0.0.1:{port} backlog 4096
  {rules}
backend backends
  balance roundrobin
  {servers}
"""

    def __init__(self, place: Place):
        super().__init__(place)
        self.conf = self.folder / "haproxy.cfg"
        # A master process, as it is run by distributions, so that it can reload.
        self._program = Child("haproxy", ["haproxy", "-W", "-db", "-f", self.conf], self.folder, place.cpus)

    @property
    def program(self) -> Child:
        return self._program

    def configure(self, paths: Sequence[str]) -> None:
        rules = "use_backend backends if { path %s }" % " ".join(paths)
        if len(paths) > 50:
            table = self.folder / "paths.map"
            table.write_text("".join(p + " backends\n" for p in paths))
            rules = "use_backend %%[path,map_str(%s)]" % table
        self.conf.write_text(
            self.CONF.format(
                threads=self.place.threads, folder=self.folder, port=self.port, rules=rules, clients=CLIENTS,
                servers="\n  ".join(
                    "server s%d %s pool-purge-delay 1h" % (i, b) for i, b in enumerate(self.place.backends)
                ),
            )  # fmt: skip
        )

    def change(self, paths: Sequence[str]) -> None:
        self.configure(paths)
        self.program.signal(signal.SIGUSR2)


class Relay(Proxy):
    """The kernel's floor: copies bytes, knows no HTTP."""

    name = RELAY

    @classmethod
    def fits(cls, measurement: str) -> bool:
        # It opens a backend connection for each client connection, and has one
        # thread and no configuration.
        return measurement not in ("close", "2cores", "reloads", "table", "change")

    def __init__(self, place: Place):
        super().__init__(place)
        argv = [BUILD / "bench" / "relay", "--listen", "127.0.0.1:%d" % self.port]
        for b in place.backends:
            argv += ["--backend", b]
        self._program = Child("relay", argv, self.folder, place.cpus)

    @property
    def program(self) -> Child:
        return self._program


class _Deferred:
    """Wakes only when the request is there, which is not the default of the
    peers. Shown beside them where connections are new."""

    @classmethod
    def fits(cls, measurement: str) -> bool:
        return measurement == "close"


class DeferredNginx(_Deferred, Nginx):
    name = "nginx, deferred"
    CONF = Nginx.CONF.replace("backlog=4096", "backlog=4096 deferred")


class DeferredHAProxy(_Deferred, HAProxy):
    name = "haproxy, deferred"
    CONF = HAProxy.CONF.replace("backlog 4096", "backlog 4096 defer-accept")


ALL: list[type[Proxy]] = [Ours, Nginx, HAProxy, DeferredNginx, DeferredHAProxy, Relay]
