"""Takes the picture of the page that the README shows: `make screenshot`.

A fleet of 248 data planes, eight of them real and under load, is watched for some
minutes; then a change is rolled out, and the picture is taken in its third step.
"""

import math
import os
import pathlib
import random
import threading
import time

from e2e.browser.scenario import PageScenario, Simulated
from e2e.harness import Client, ConnectionLost, ControlPlane, Origin, Request, answer, eventually
from e2e.harness.origin import Connection
from e2e.harness.scenario import write

OUT = pathlib.Path(__file__).with_name("page.png")
MINUTES = float(os.environ.get("E2E_MINUTES", "3"))

# Endpoints with how often each is asked, relative to the others.
PATHS = {"/": 30, "/cart": 12, "/search/all": 22, "/assets/app.js": 40, "/images/1.png": 34, "/v1/orders/7": 15, "/v1/users/4": 9, "/login": 4}
ENDPOINTS = """
- {name: home, from: /, pool: [%(a)s, %(b)s]}
- {name: cart, from: /cart, pool: [%(a)s, %(b)s]}
- {name: search, from: /search/*, methods: [GET, HEAD], pool: [%(flaky)s]}
- {name: assets, from: /assets/*, pool: [%(a)s/static, %(b)s/static]}
- {name: images, from: /images/*, pool: [%(b)s]}
- {name: orders, from: /v1/orders/*, pool: [%(a)s]}
- {name: users, from: /v1/users/*, pool: [%(a)s, %(b)s]}
- {name: login, from: /login, methods: [GET, POST], pool: [%(b)s]}
"""
ROLLOUT = "rollout: {steps: [1, 5%, 40%, 100%], canary: {canary: 'yes'}, bake: 20s, minRequests: 1, abortOn: {errorRate: 100%, latencyP99: 100x}}"


class Picture(PageScenario):
    def test_the_picture(self):
        pool = {name: self.origin(name, record=False).url for name in "ab"}
        pool["flaky"] = self.origin("flaky", sometimes, record=False).url
        text = "port: %d\n%s\nendpoints:%s" % (self.port, ROLLOUT, ENDPOINTS % pool)
        write(self.dir / "fleet.yaml", text)
        cp = ControlPlane("controlplane", self.dir / "fleet.yaml", self.dir / "controlplane.log", "--state-dir", str(self.dir / "state"))
        cp.argv[-1], cp.cwd = "fleet.yaml", self.dir  # the picture has no path of this machine
        self.program(cp)
        self.wait_control_plane(cp)
        self.program(Simulated(cp, 240, self.dir / "dataplanes.log"))
        places = ["ams", "ber", "cdg", "dub"]
        dps = [
            self.data_plane("%s-%d" % (place, n), cp, flags=["--label", "region=" + place, "--label", "canary=" + ("yes" if n == 1 and place == "ams" else "no")])
            for place in places for n in (1, 2)
        ]  # fmt: skip
        self.wait_applied(cp, dps)
        stop = threading.Event()
        loads = [threading.Thread(target=load, args=(self.port, i, stop), daemon=True) for i in range(24)]
        for thread in loads:
            thread.start()
        try:
            time.sleep(MINUTES * 60)  # the time is what the charts show
            dps[5].kill()
            write(cp.config, text.replace("name: login", "name: sign-in"))
            self.browser.size(1280, 860)
            self.open(cp)
            self.wait_equal("40%", lambda: self.browser.text("#rollout-steps .current b"))
            self.wait_equal("baking", lambda: self.browser.text("#rollout-phase"))
            eventually(lambda: self.browser.texts("#rollout-windows td:nth-child(3)")[0] != "0", "requests are compared")
            eventually(lambda: int(self.browser.text("#planes-sub").split()[0]) > 90, "the fleet is shown as it is in this step")
            OUT.write_bytes(self.browser.screenshot())
        finally:
            stop.set()
            for thread in loads:
                thread.join()
        self.assertLess(OUT.stat().st_size, 150_000)

    def wait_equal(self, expected, seen) -> None:
        eventually(lambda: seen() == expected, "what is expected is shown", within=300)


def sometimes(origin: Origin, request: Request, connection: Connection) -> None:
    """Fails a part of the requests, more at some times than at others."""
    connection.read_body(request)
    bad = random.random() < 0.02 + 0.06 * max(0, math.sin(time.monotonic() / 20))
    answer(connection, b"flaky", status="500 Internal Server Error" if bad else "200 OK")


def load(port: int, number: int, stop: threading.Event) -> None:
    """Requests at a rate that swings."""
    turns = [path for path, weight in PATHS.items() for _ in range(weight)]
    client, at = Client(port), number * 7
    while not stop.wait(0.06 + 0.03 * math.sin(time.monotonic() / 25)):
        at += 37
        try:
            client.request(turns[at % len(turns)])
        except ConnectionLost:
            client.close()
            client = Client(port)
    client.close()
