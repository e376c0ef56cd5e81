"""The base of the scenarios about the page: a browser, and what is seen in it."""

import pathlib
import shutil
import subprocess
import tempfile

from e2e.browser.webdriver import Browser
from e2e.harness import ControlPlane, Program, Scenario, eventually
from e2e.harness.processes import BUILD

# Runs in each page before its own scripts: what the policy has stopped, and whether
# something that was meant as text has run.
WATCH = """
window.violations = [];
window.ran = 0;
document.addEventListener("securitypolicyviolation", (e) => window.violations.push(e.violatedDirective + " " + e.blockedURI));
"""


class Simulated(Program):
    """Many data planes in one process; see e2e/bench/dataplanes."""

    how = {"start_new_session": True}

    def __init__(self, cp: ControlPlane, count: int, log: pathlib.Path):
        argv = [BUILD / "bench" / "dataplanes", "--controlplane", cp.server, "--count", count, "--prefix", "edge"]
        super().__init__("dataplanes", list(map(str, argv)), log)

    def start(self) -> None:
        self.may_end = False
        with open(self.log_file, "ab") as log:
            # Its end is when its input ends.
            self.process = subprocess.Popen(self.argv, stdin=subprocess.PIPE, stdout=log, stderr=log, **self.how)

    def stop(self) -> None:
        self.process.stdin.close()
        self.wait()


class PageScenario(Scenario):
    """One browser for all tests of a class."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.browser_dir = pathlib.Path(tempfile.mkdtemp(prefix="e2e-browser-"))
        cls.addClassCleanup(shutil.rmtree, cls.browser_dir, ignore_errors=True)
        cls.browser = Browser(cls.browser_dir)
        cls.addClassCleanup(cls.browser.stop)
        cls.browser.start()
        cls.browser.devtools("Page.addScriptToEvaluateOnNewDocument", source=WATCH)

    def setUp(self):
        super().setUp()
        self.browser.size(1440, 960)
        self.browser.scheme("light")
        self.addCleanup(self.browser.open, "about:blank")

    def open(self, cp: ControlPlane, view: str = "") -> None:
        self.browser.console()  # what an earlier page has written
        self.browser.open("http://127.0.0.1:%d/%s" % (cp.admin_port, view))
        eventually(lambda: self.live().startswith("live"), "the page is live")

    def live(self) -> str:
        return self.browser.text("#live")

    def rows(self, table: str = "fleet") -> list[list[str]]:
        """The texts of the rows that are elements at the moment."""
        return self.browser.script(
            "return [...document.querySelectorAll(`#${arguments[0]}-rows tr:not(.spacer)`)].map((r) => [...r.cells].map((c) => c.textContent))",
            table,
        )

    def states(self) -> dict[str, str]:
        return {row[0]: row[1] for row in self.rows()}

    def wait_row(self, name: str, state: str) -> None:
        eventually(lambda: self.states().get(name) == state, "%s is shown as %s" % (name, state))

    def wait_equal(self, expected, seen) -> None:
        """Waits until seen() is what is expected."""

        def there() -> bool:
            self.assertEqual(expected, seen())
            return True

        eventually(there, "what is expected is shown")

    def assert_nothing_went_wrong(self, *expected: str) -> None:
        """No error in the console but those that contain one of the words, and nothing
        that the policy had to stop."""
        self.assertEqual([], self.browser.script("return window.violations"))
        self.assertEqual(0, self.browser.script("return window.ran"))
        unexpected = [line for line in self.browser.console() if not any(word in line for word in expected)]
        self.assertEqual([], unexpected)
