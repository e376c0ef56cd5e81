"""Headless Chromium, told what to do by chromedriver's plain HTTP: the WebDriver
protocol of the W3C, as far as the scenarios need it."""

import base64
import http.client
import json
import os
import pathlib
import shutil
import signal
import time
from typing import Any

from e2e.harness import Program, eventually, free_port

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class BrowserError(AssertionError):
    """What chromedriver says when it could not do something."""


class Browser(Program):
    """chromedriver and the Chromium it starts, with a profile of their own."""

    def __init__(self, directory: pathlib.Path):
        self.port = free_port()
        self.profile = directory / "profile"
        self.session = ""
        driver = shutil.which("chromedriver") or "chromedriver"
        super().__init__("chromedriver", [driver, "--port=%d" % self.port], directory / "chromedriver.log")
        self.env = {"HOME": str(directory), "XDG_CONFIG_HOME": str(directory), "XDG_CACHE_HOME": str(directory)}

    # --- its life -------------------------------------------------------------

    def start(self) -> None:
        super().start()
        eventually(lambda: self._call("GET", "/status")["ready"], "chromedriver answers", within=60)
        arguments = [
            "--headless=new", "--user-data-dir=%s" % self.profile, "--window-size=1440,960", "--hide-scrollbars",
            "--no-first-run", "--no-default-browser-check", "--disable-extensions", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--disable-breakpad", "--disable-gpu",
            # Where /dev/shm is as small as in a container.
            "--disable-dev-shm-usage",
            "--force-color-profile=srgb", "--no-proxy-server", "--lang=en-GB",
        ]  # fmt: skip
        if os.geteuid() == 0:
            arguments.append("--no-sandbox")  # Chromium refuses to have one as root
        capabilities = {"goog:chromeOptions": {"args": arguments}, "goog:loggingPrefs": {"browser": "ALL"}}
        if chromium := shutil.which("chromium"):
            capabilities["goog:chromeOptions"]["binary"] = chromium
        self.session = self._call("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})["sessionId"]

    def stop(self) -> None:
        if self.session and self.running():
            try:
                self._call("DELETE", "/session/" + self.session)
            except (OSError, BrowserError):
                pass  # what is left is ended below
            self.session = ""
        super().stop()
        deadline = time.monotonic() + 20
        while (left := self._left()) and time.monotonic() < deadline:
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.02)
        assert not left, "processes of the browser are left: %s" % left

    def _left(self) -> list[int]:
        """Processes of the driver's session, and those that were started with this
        profile in one of their own; not those that have ended."""
        found = []
        for path in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                state, _, _, session = (path / "stat").read_text().rpartition(")")[2].split()[:4]
                ours = int(session) == self.pid or os.fsencode(self.profile) in (path / "cmdline").read_bytes()
            except OSError:
                continue
            if ours and state != "Z":
                found.append(int(path.name))
        return found

    # --- what it can do -------------------------------------------------------

    def open(self, url: str) -> None:
        self._do("POST", "/url", {"url": url})

    def script(self, body: str, *args: Any) -> Any:
        """Runs the body of a function in the page and returns what it returns. This
        is chromedriver's own channel: the page's policy does not apply."""
        return self._do("POST", "/execute/sync", {"script": body, "args": list(args)})

    def devtools(self, command: str, **parameters: Any) -> Any:
        return self._do("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def text(self, css: str) -> str:
        """The visible text of the first element."""
        return self._do("GET", "/element/%s/text" % self._find(css))

    def texts(self, css: str) -> list[str]:
        """The text of every element, in one question."""
        return self.script("return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)", css)

    def click(self, css: str) -> None:
        self._do("POST", "/element/%s/click" % self._find(css), {})

    def type(self, css: str, keys: str) -> None:
        self._do("POST", "/element/%s/value" % self._find(css), {"text": keys})

    def press(self, *keys: str) -> None:
        """Keys, one after the other, to whatever has the focus."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._do("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def size(self, width: int, height: int) -> None:
        """The size of the page, also below what a window can have."""
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)

    def scheme(self, name: str) -> None:
        """Makes the page believe that the user prefers light or dark."""
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def screenshot(self) -> bytes:
        """What is seen, as PNG."""
        return base64.b64decode(self._do("GET", "/screenshot"))

    def console(self) -> list[str]:
        """What the page has written to the console since the last time, such as
        errors and everything that its policy has stopped."""
        return ["%s: %s" % (e["level"], e["message"]) for e in self._do("POST", "/se/log", {"type": "browser"})]

    # --- the protocol ---------------------------------------------------------

    def _find(self, css: str) -> str:
        return self._do("POST", "/element", {"using": "css selector", "value": css})[_ELEMENT]

    def _do(self, method: str, path: str, body: Any = None) -> Any:
        return self._call(method, "/session/" + self.session + path, body)

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            value = json.loads(answer.read())["value"]
        except ConnectionRefusedError as e:
            raise BrowserError("%s: no connection to chromedriver: %s" % (path, e)) from e
        finally:
            connection.close()
        if answer.status != 200:
            raise BrowserError("%s: %s: %s" % (path, value["error"], value["message"].splitlines()[0]))
        return value
