"""Backends for trying things out: each names itself in its answer.

    python3 e2e/demo_backends.py 5000 5001

starts one HTTP backend for each port on the loopback addresses, until it is
stopped. Standard library only.
"""

import errno
import http.server
import signal
import socket
import socketserver
import sys
import threading


class Backend(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = "backend %d got %s %s\n" % (self.server.server_address[1], self.command, self.path)
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body.encode())

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer

    def log_message(self, *_) -> None:
        """The demo's output belongs to the reader."""


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        # Not HTTPServer's, which asks DNS for a name, and may wait long for it.
        socketserver.TCPServer.server_bind(self)


class Server6(Server):
    address_family = socket.AF_INET6


def main(ports: list[int]) -> int:
    if not ports:
        print(__doc__, file=sys.stderr)
        return 2
    servers = []
    for port in ports:
        try:
            servers.append(Server(("127.0.0.1", port), Backend))
        except OSError as e:
            print("demo backends: port %d: %s" % (port, e.strerror), file=sys.stderr)
            return 1
        try:
            servers.append(Server6(("::1", port), Backend))
        except OSError as e:
            if e.errno == errno.EADDRINUSE:
                print("demo backends: port %d on ::1: %s" % (port, e.strerror), file=sys.stderr)
                return 1
            # This machine has no IPv6.
    for s in servers:
        threading.Thread(target=s.serve_forever, daemon=True).start()
    print("demo backends: listening on ports %s" % ", ".join(map(str, ports)), flush=True)
    signal.sigwait({signal.SIGINT, signal.SIGTERM})
    return 0


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    sys.exit(main([int(a) for a in sys.argv[1:]]))
