"""/metrics, on the admin ports and on the proxy port."""

import shutil
import subprocess

from e2e.harness import Scenario, eventually, free_port, get, parse

DATA_PLANE = {
    "dataplane_requests_total": "counter",
    "dataplane_request_duration_seconds": "histogram",
    "dataplane_requests_in_flight": "gauge",
    "dataplane_backend_requests_total": "counter",
    "dataplane_backend_errors_total": "counter",
    "dataplane_backend_request_duration_seconds": "histogram",
    "dataplane_backend_up": "gauge",
    "dataplane_client_errors_total": "counter",
    "dataplane_endpoint_panic": "gauge",
    "dataplane_endpoint_panics_total": "counter",
    "dataplane_requests_refused_total": "counter",
    "dataplane_connections": "gauge",
    "dataplane_request_bytes_total": "counter",
    "dataplane_response_bytes_total": "counter",
    "dataplane_config_info": "gauge",
    "dataplane_config_updates_total": "counter",
    "dataplane_config_last_update_successful": "gauge",
    "dataplane_controlplane_connected": "gauge",
    "dataplane_build_info": "gauge",
    "dataplane_threads": "gauge",
    "go_goroutines": "gauge",
    "process_open_fds": "gauge",
}
CONTROL_PLANE = {
    "controlplane_dataplanes": "gauge",
    "controlplane_config_info": "gauge",
    "controlplane_config_loads_total": "counter",
    "controlplane_config_last_load_successful": "gauge",
    "controlplane_history_last_write_successful": "gauge",
    "controlplane_pushes_total": "counter",
    "controlplane_table_bytes_sent_total": "counter",
    "controlplane_tables_sent_total": "counter",
    "controlplane_convergence_seconds": "histogram",
    "controlplane_switch_spread_seconds": "histogram",
    "controlplane_build_info": "gauge",
    "controlplane_drained_backends": "gauge",
    "go_goroutines": "gauge",
}


class MetricsPages(Scenario):
    def assert_types(self, want: dict[str, str], types: dict[str, str]):
        self.assertEqual(want, {name: types.get(name) for name in want})

    def counted(self, dp, requests: int):
        """Metrics with all of these requests. A client may have its answer a moment
        before it is counted."""

        def all_counted():
            m = dp.metrics()
            return m if m.sum("dataplane_requests_total") == requests else None

        return eventually(all_counted, "%d requests are counted" % requests)

    def test_the_data_planes(self):
        a = self.origin("a")
        dead = "http://127.0.0.1:%d" % free_port()
        cp, (dp,) = self.fleet(self.config({"/x": [a], "/dead": [dead]}))
        for _ in range(3):
            get(self.port, "/x")
        self.assertEqual(502, get(self.port, "/dead").status)
        self.assertEqual(404, get(self.port, "/none").status)

        m = self.counted(dp, 5)
        self.assert_types(DATA_PLANE, m.types)
        self.assertEqual(3, m.value("dataplane_requests_total", endpoint="/x", code="200", method="GET"))
        self.assertEqual(1, m.value("dataplane_requests_total", endpoint="/dead", code="502"))
        self.assertEqual(1, m.value("dataplane_requests_total", endpoint="none", code="404"))
        self.assertEqual(3, m.value("dataplane_request_duration_seconds_count", endpoint="/x"))
        self.assertEqual(3, m.value("dataplane_backend_requests_total", endpoint="/x", backend=a.url, code="200"))
        self.assertEqual(1, m.sum("dataplane_backend_errors_total", endpoint="/dead", backend=dead))
        self.assertEqual(1, m.value("dataplane_backend_up", endpoint="/x", backend=a.url))
        self.assertEqual(0, m.value("dataplane_backend_up", endpoint="/dead", backend=dead))
        self.assertEqual(0, m.sum("dataplane_requests_in_flight", endpoint="/x"))
        self.assertEqual(1, m.value("dataplane_config_info", version=cp.status()["version"], revision="1", source="stream"))
        self.assertEqual(1, m.value("dataplane_config_last_update_successful"))
        bounds = sorted(float(b) for b in m.labels("dataplane_request_duration_seconds_bucket", "le") if b != "+Inf")
        self.assertEqual((0.0005, 10), (bounds[0], bounds[-1]))

    def test_the_control_planes(self):
        a = self.origin("a")
        cp, dps = self.fleet(self.config({"/x": [a]}), ["dp1", "dp2"])
        status = self.change(cp, self.config({"/x": [a], "/y": [a]}), *dps)
        m = cp.metrics()
        self.assert_types(CONTROL_PLANE, m.types)
        self.assertEqual(2, m.value("controlplane_dataplanes", state="applied"))
        self.assertEqual(0, m.value("controlplane_dataplanes", state="rejected"))
        self.assertEqual(1, m.value("controlplane_config_info", version=status["version"], revision="2"))
        self.assertEqual(1, m.value("controlplane_config_last_load_successful"))
        # One observation for each data plane and change; how the very first
        # table counts is a matter of who came first.
        self.assertIn(m.value("controlplane_convergence_seconds_count"), (2, 3, 4))

    def test_on_the_proxy_port_until_the_file_says_otherwise(self):
        a = self.origin("a")
        cp, (dp,) = self.fleet(self.config({"/x": [a]}))
        get(self.port, "/x")
        r = get(self.port, "/metrics")
        self.assertEqual(200, r.status)
        self.assertIn("text/plain", r.get("Content-Type"))
        self.assert_types(DATA_PLANE, parse(r.text).types)
        self.assertEqual(["/x"], [r.target for r in a.seen()])

        self.change(cp, self.config({"/x": [a]}, extra="metrics: {onProxyPort: false}"), dp)
        self.assertEqual(404, get(self.port, "/metrics").status)
        self.assertEqual(200, get(dp.admin_port, "/metrics").status)

        # An endpoint that matches /metrics wins.
        self.change(cp, self.config({"/metrics": [a]}), dp)
        self.assertEqual("a", get(self.port, "/metrics").text)

    def test_series_of_removed_endpoints_vanish_and_the_others_go_on(self):
        a, b = self.origin("a"), self.origin("b")
        cp, (dp,) = self.fleet(self.config({"/stay": [a, b], "/go": [a]}))
        for path in ("/stay", "/stay", "/go"):
            get(self.port, path)
        self.assertEqual(1, self.counted(dp, 3).sum("dataplane_requests_total", endpoint="/go"))

        self.change(cp, self.config({"/stay": [a]}), dp)
        m = eventually(
            lambda: (m := dp.metrics()) and not _with_label(m, "endpoint", "/go") and m, "the series are gone"
        )
        self.assertEqual(2, m.sum("dataplane_requests_total", endpoint="/stay"))
        self.assertEqual(set(), _with_label(m, "backend", b.url))
        self.assertNotEqual(set(), _with_label(m, "backend", a.url))

    def test_promtool_agrees_where_it_is_installed(self):
        promtool = shutil.which("promtool")
        if promtool is None:
            self.skipTest("promtool is not installed")
        a = self.origin("a")
        cp, (dp,) = self.fleet(self.config({"/x": [a]}))
        get(self.port, "/x")
        for port in (cp.admin_port, dp.admin_port, self.port):
            p = subprocess.run(
                [promtool, "check", "metrics"], input=get(port, "/metrics").body, capture_output=True, timeout=60
            )
            self.assertEqual((0, b""), (p.returncode, p.stdout + p.stderr))

    def test_the_admin_pages(self):
        a = self.origin("a")
        cp, (dp,) = self.fleet(self.config({"/x": [a]}))
        for port in (cp.admin_port, dp.admin_port):
            self.assertEqual((200, 200), (get(port, "/healthz").status, get(port, "/readyz").status))
        r = get(dp.admin_port, "/config")
        self.assertEqual(200, r.status)
        self.assertIn(cp.status()["version"], r.text)


def _with_label(m, label: str, value: str) -> set[str]:
    """Names of the metrics that have this label value."""
    return {name for name in m.samples if value in m.labels(name, label)}
