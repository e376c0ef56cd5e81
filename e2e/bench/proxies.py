"""The proxies that are compared, each configured as well as we know how to.

All do the same: requests for the exact path /bench (and /64k, /1m) go in turn to
two backends over connections that are kept. None writes an access log, none has
a limit in the way. Ours adds Via and the X-Forwarded fields, checks, counts and
times everything as always; the others are not asked to.
"""

import dataclasses
import os
import pathlib
import signal

from e2e.bench import children
from e2e.bench.children import Child
from e2e.bench.origin import FILES, nginx_user
from e2e.harness import ControlPlane, DataPlane, eventually, free_port, get
from e2e.harness.processes import BUILD
from e2e.harness.scenario import write

PATHS = ["/bench", *FILES]


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a proxy runs, and what for."""

    folder: pathlib.Path
    backends: list[str]
    threads: int
    # The proxy's CPUs, and those of what stands around it.
    cpus: frozenset[int]
    others: frozenset[int]


class Proxy:
    """One proxy. name is the column of the report."""

    name = ""
    # Cells that it has nothing to say to, by name.
    unfit: frozenset[str] = frozenset()

    def __init__(self, place: Place):
        self.place = place
        self.folder = place.folder / self.name
        self.folder.mkdir(parents=True)
        self.port = free_port()

    @property
    def program(self) -> Child | DataPlane:
        """What is measured."""
        raise NotImplementedError

    @property
    def pid(self) -> int:
        return self.program.pid

    def start(self) -> None:
        self.program.start()
        self.wait()

    def wait(self) -> None:
        def answers():
            if not self.program.running():
                raise RuntimeError("%s has ended:\n%s" % (self.name, self.program.log()[-2000:]))
            return get(self.port, PATHS[0]).status == 200

        eventually(answers, "%s answers" % self.name)

    def stop(self) -> None:
        self.program.stop()


class Ours(Proxy):
    name = "ours"

    def __init__(self, place: Place):
        super().__init__(place)
        self.control_plane = ControlPlane("controlplane", self.folder / "config.yaml", self.folder / "controlplane.log")
        self.data_plane = DataPlane(
            "dataplane", [self.control_plane.server], self.folder / "state", self.folder / "dataplane.log",
            "--threads", str(place.threads), "--drain-timeout", "1s", *os.environ.get("BENCH_FLAGS", "").split(),
        )  # fmt: skip
        self.data_plane.how = children.how(place.cpus)
        # It only works when the configuration changes, and then in the background.
        self.control_plane.how = children.how(place.others, niceness=19)

    @property
    def program(self) -> DataPlane:
        return self.data_plane

    def config(self, extra: str = "") -> str:
        pool = "".join("  - http://%s\n" % b for b in self.place.backends)
        endpoints = "".join("- from: %s\n  pool:\n%s" % (path, pool) for path in PATHS)
        return "port: %d\nlimits: {maxConnections: 7000, idleTimeout: 1h}\nendpoints:\n%s%s" % (self.port, endpoints, extra)

    def start(self) -> None:
        write(self.control_plane.config, self.config())
        self.control_plane.start()
        super().start()

    def stop(self) -> None:
        self.data_plane.stop()
        self.control_plane.stop()


class Nginx(Proxy):
    name = "nginx"

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
  {extra}
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
        self.argv = ["nginx", "-e", self.folder / "error.log", "-c", self.conf]
        self._program = Child("nginx", self.argv, self.folder, place.cpus)
        self.configure()

    @property
    def program(self) -> Child:
        return self._program

    def configure(self, locations: str | None = None, extra: str = "") -> None:
        if locations is None:
            locations = "\n    ".join("location = %s { proxy_pass http://backends; }" % p for p in PATHS)
        self.conf.write_text(
            self.CONF.format(
                user=nginx_user(), threads=self.place.threads, folder=self.folder, port=self.port, extra=extra,
                # With several workers each has a queue of its own, or one gets all.
                listen=" reuseport" if self.place.threads > 1 else "",
                servers=" ".join("server %s max_fails=0;" % b for b in self.place.backends),
                locations=locations,
            )  # fmt: skip
        )

    def reload(self) -> None:
        self.program.signal(signal.SIGHUP)


class HAProxy(Proxy):
    name = "haproxy"

    CONF = """
global
  nbthread {threads}
  maxconn 7000
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
        self.configure("use_backend backends if { path %s }" % " ".join(PATHS))

    @property
    def program(self) -> Child:
        return self._program

    def configure(self, rules: str) -> None:
        self.conf.write_text(
            self.CONF.format(
                threads=self.place.threads, folder=self.folder, port=self.port, rules=rules,
                servers="\n  ".join(
                    "server s%d %s pool-purge-delay 1h" % (i, b) for i, b in enumerate(self.place.backends)
                ),
            )  # fmt: skip
        )

    def reload(self) -> None:
        self.program.signal(signal.SIGUSR2)


class Relay(Proxy):
    """The kernel's floor: copies bytes, knows no HTTP."""

    name = "relay"
    # It opens a backend connection for each client connection, and has one thread.
    unfit = frozenset({"close", "2cores"})

    def __init__(self, place: Place):
        super().__init__(place)
        argv = [BUILD / "bench" / "relay", "--listen", "127.0.0.1:%d" % self.port]
        for b in place.backends:
            argv += ["--backend", b]
        self._program = Child("relay", argv, self.folder, place.cpus)

    @property
    def program(self) -> Child:
        return self._program


ALL: list[type[Proxy]] = [Ours, Nginx, HAProxy, Relay]
