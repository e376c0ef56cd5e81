"""The origin: nginx with one worker, two ports, answers of three sizes."""

import os
import pathlib
import shutil
import tempfile

from e2e.bench.children import Child
from e2e.harness import eventually, free_port, get

SMALL = 1024
FILES = {"/64k": 64 << 10, "/1m": 1 << 20}

_CONF = """
{user}
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections {connections}; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  keepalive_timeout 1h; keepalive_requests 1000000000;
  client_body_buffer_size 32k;
  sendfile on; tcp_nopush on;
  server {{
    {listen}
    location / {{ default_type text/plain; return 200 "{small}"; }}
    location = /64k {{ root {root}; }}
    location = /1m {{ root {root}; }}
  }}
}}
"""


class Origin:
    """Two ports of one nginx. The larger answers are files in memory."""

    def __init__(self, folder: pathlib.Path, cpus: frozenset[int]):
        folder.mkdir()
        memory = pathlib.Path("/dev/shm")
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="bench-", dir=memory if memory.is_dir() else folder))
        self.root.chmod(0o755)
        for path, size in FILES.items():
            (self.root / path[1:]).write_bytes(b"x" * size)
        self.ports = [free_port(), free_port()]
        self.addresses = ["127.0.0.1:%d" % p for p in self.ports]
        conf = folder / "nginx.conf"
        conf.write_text(
            _CONF.format(
                user=nginx_user(), folder=folder, root=self.root, small="x" * SMALL, connections=16384,
                listen=" ".join("listen %s backlog=4096;" % a for a in self.addresses),
            )  # fmt: skip
        )
        self.program = Child("origin", ["nginx", "-e", folder / "error.log", "-c", conf], folder, cpus)

    @property
    def pid(self) -> int:
        return self.program.pid

    def start(self) -> None:
        self.program.start()
        for port in self.ports:
            eventually(lambda port=port: get(port, "/").status == 200, "the origin answers")

    def stop(self) -> None:
        self.program.stop()
        shutil.rmtree(self.root, ignore_errors=True)


def nginx_user() -> str:
    """Workers that may read what this user made."""
    return "user root;" if os.geteuid() == 0 else ""
