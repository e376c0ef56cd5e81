package activate_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protowire"

	"reverseproxy/dataplane/internal/activate"
	"reverseproxy/dataplane/internal/activate/activatetest"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const backend1, backend2 = "http://127.0.0.1:5001", "http://127.0.0.1:5002"

func newActivator(t *testing.T, change func(*activate.Options)) (*activate.Activator, activate.Options) {
	t.Helper()
	o := activatetest.Options(t)
	o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	if change != nil {
		change(&o)
	}
	return activate.New(o), o
}

// ask returns what the proxy answers on a port: the version in force, or an
// error when nobody listens.
func ask(t *testing.T, port uint16) (string, error) {
	t.Helper()
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return "", err
	}
	defer c.Close()
	p, err := io.ReadAll(c)
	return string(p), err
}

func wantServed(t *testing.T, port uint16, version string) {
	t.Helper()
	if got, err := ask(t, port); err != nil || got != version {
		t.Errorf("port %d serves %q, %v; want %q", port, got, err, version)
	}
}

func wantClosed(t *testing.T, port uint16) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return
		}
		c.Close()
		if time.Now().After(deadline) {
			t.Fatalf("port %d is still open", port)
		}
	}
}

// mustActivate puts a table in force and returns its version.
func mustActivate(t *testing.T, a *activate.Activator, revision uint64, port uint16, urls ...string) string {
	t.Helper()
	rt, version := activatetest.Table(port, urls...)
	if err := a.Activate(activatetest.Encode(t, rt), version, revision, activate.Stream); err != nil {
		t.Fatalf("activate revision %d: %v", revision, err)
	}
	return version
}

func TestFirstTable(t *testing.T) {
	a, o := newActivator(t, nil)
	if err := a.Ready(); err == nil || !strings.Contains(err.Error(), "no route table") {
		t.Errorf("ready before a table: %v", err)
	}
	if a.InForce() != nil || o.Live.Load() != nil {
		t.Error("something is in force before a table")
	}
	port := activatetest.Port(t)
	version := mustActivate(t, a, 7, port, backend1)

	if err := a.Ready(); err != nil {
		t.Errorf("not ready: %v", err)
	}
	wantServed(t, port, version)
	f := a.InForce()
	if f.Table != o.Live.Load() || f.Table.Version != version || f.Revision != 7 || f.Source != activate.Stream ||
		f.Address != fmt.Sprintf("127.0.0.1:%d", port) || f.AppliedAt.IsZero() {
		t.Errorf("in force: %+v", f)
	}
}

func TestPortChange(t *testing.T) {
	a, _ := newActivator(t, nil)
	first, second := activatetest.Port(t), activatetest.Port(t)
	mustActivate(t, a, 1, first, backend1)
	version := mustActivate(t, a, 2, second, backend1)
	wantServed(t, second, version)
	wantClosed(t, first)
	version = mustActivate(t, a, 3, first, backend1)
	wantServed(t, first, version)
	wantClosed(t, second)
}

func TestPortFlagOverridesTheTable(t *testing.T) {
	port := activatetest.Port(t)
	a, _ := newActivator(t, func(o *activate.Options) { o.Port = port })
	mustActivate(t, a, 1, 1, backend1)
	listener := a.InForce().Address
	version := mustActivate(t, a, 2, 2, backend1)
	wantServed(t, port, version)
	if got := a.InForce(); got.Address != listener || got.Table.Port != 2 {
		t.Errorf("in force on %s with port %d, want %s and 2", got.Address, got.Table.Port, listener)
	}
}

// A table that is refused, for whatever reason, changes nothing.
func TestRefusedTableChangesNothing(t *testing.T) {
	taken, _ := activatetest.TakenPort(t)
	admin := activatetest.Port(t)
	tests := []struct {
		name    string
		port    uint16 // 0: the one that is open
		change  func(rt *routetablev1.RouteTable, version string) string
		listen  bool   // want ErrListen
		path    string // want a problem here
		message string
	}{
		{name: "other version", change: func(_ *routetablev1.RouteTable, v string) string { return strings.Repeat("0", 64) }, message: "announced"},
		{name: "no version", change: func(*routetablev1.RouteTable, string) string { return "" }, message: "announced"},
		{name: "broken rule", change: func(rt *routetablev1.RouteTable, _ string) string {
			rt.Endpoints[0].Pool = nil
			return routetable.Version(rt)
		}, path: "endpoints[0].pool", message: ""},
		{name: "field of a later release", change: func(rt *routetablev1.RouteTable, v string) string {
			rt.Endpoints[0].ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 1))
			return strings.Repeat("f", 64)
		}, path: "endpoints[0]", message: "does not know"},
		{name: "port of a foreign program", port: taken, listen: true, path: "port", message: "address already in use"},
		{name: "port of the admin server", port: admin, path: "port", message: "--admin"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, o := newActivator(t, func(o *activate.Options) { o.AdminPort = admin })
			registry := prometheus.NewPedanticRegistry()
			registry.MustRegister(o.State.Metrics)
			open := activatetest.Port(t)
			version := mustActivate(t, a, 1, open, backend1)
			before, series := a.InForce(), names(t, registry)

			port := open
			if tt.port != 0 {
				port = tt.port
			}
			rt, refused := activatetest.Table(port, backend2, backend1, backend1)
			if tt.change != nil {
				refused = tt.change(rt, refused)
			}
			err := a.Activate(activatetest.Encode(t, rt), refused, 2, activate.Stream)
			if err == nil {
				t.Fatal("activated")
			}
			if got := errors.Is(err, activate.ErrListen); got != tt.listen {
				t.Errorf("error %v is ErrListen: %v, want %v", err, got, tt.listen)
			}
			if !strings.Contains(err.Error(), tt.message) {
				t.Errorf("error %q does not contain %q", err, tt.message)
			}
			var p *routetable.Problem
			if got := errors.As(err, &p); got != (tt.path != "") || got && p.Path != tt.path {
				t.Errorf("problem %+v, want one at %q", p, tt.path)
			}

			if a.InForce() != before || o.Live.Load() != before.Table {
				t.Error("another table is in force")
			}
			if err := a.Ready(); err != nil {
				t.Errorf("not ready any more: %v", err)
			}
			wantServed(t, open, version)
			if diff := cmp.Diff(series, names(t, registry)); diff != "" {
				t.Errorf("series (-before +after):\n%s", diff)
			}
		})
	}
}

// journal is an AccessLog that remembers what it is told.
type journal struct {
	broken   string // path that cannot be written
	checked  []string
	followed []string
}

func (j *journal) Check(path string) error {
	j.checked = append(j.checked, path)
	if path == j.broken {
		return errors.New("no space left on device")
	}
	return nil
}

func (j *journal) Follow(path string) { j.followed = append(j.followed, path) }

// A table that moves the log to where it cannot be written is refused. No other
// change is, and neither is the first table.
func TestAccessLog(t *testing.T) {
	port := activatetest.Port(t)
	logged := func(path string, urls ...string) (*routetablev1.RouteTable, string) {
		rt, _ := activatetest.Table(port, urls...)
		if path != "" {
			rt.AccessLog = &routetablev1.AccessLog{Path: path, Format: routetablev1.AccessLogFormat_ACCESS_LOG_FORMAT_JSON, SamplePerMillion: 1}
		}
		return rt, routetable.Version(rt)
	}
	j := &journal{broken: "/full"}
	a, _ := newActivator(t, func(o *activate.Options) { o.AccessLog = j })
	revision := uint64(0)
	apply := func(path string, urls ...string) error {
		revision++
		rt, version := logged(path, urls...)
		return a.Activate(activatetest.Encode(t, rt), version, revision, activate.Stream)
	}
	for _, step := range []struct {
		path    string
		refused bool
	}{{"/full", false}, {"/full", false}, {"", false}, {"/full", true}, {"/a", false}, {"/full", true}, {"/a", false}, {"/b", false}} {
		before := a.InForce()
		err := apply(step.path, backend1, fmt.Sprintf("http://127.0.0.1:%d", 6000+revision))
		var p *routetable.Problem
		if refused := errors.As(err, &p); refused != step.refused || refused && (p.Path != "access_log.path" || !strings.Contains(p.Message, "/full cannot be written by this data plane: no space") || errors.Is(err, activate.ErrListen)) {
			t.Errorf("revision %d, %s: %v", revision, step.path, err)
		}
		if step.refused && a.InForce() != before {
			t.Errorf("revision %d, %s: in force", revision, step.path)
		}
	}
	if diff := cmp.Diff([]string{"/full", "/full", "", "/a", "/a", "/b"}, j.followed); diff != "" {
		t.Errorf("followed (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"/full", "/a", "/full", "/b"}, j.checked); diff != "" {
		t.Errorf("checked (-want +got):\n%s", diff)
	}
}

// names returns the endpoints and backends that have series.
func names(t *testing.T, g prometheus.Gatherer) map[string]bool {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]bool)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "endpoint" || l.GetName() == "backend" {
					found[l.GetName()+" "+l.GetValue()] = true
				}
			}
		}
	}
	return found
}

func TestRemovedEndpointsLoseTheirSeries(t *testing.T) {
	a, o := newActivator(t, nil)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(o.State.Metrics)
	port := activatetest.Port(t)
	mustActivate(t, a, 1, port, backend1, backend2)
	if got := names(t, registry); !got["endpoint /b"] || !got["backend "+backend2] {
		t.Fatalf("series of %v, want /b and its backend among them", got)
	}
	mustActivate(t, a, 2, port, backend1)
	if got := names(t, registry); got["endpoint /b"] || got["backend "+backend2] || !got["endpoint /a"] {
		t.Errorf("series of %v, want /a and not /b", got)
	}
}

func TestSameVersionAgain(t *testing.T) {
	a, o := newActivator(t, nil)
	port := activatetest.Port(t)
	rt, version := activatetest.Table(port, backend1)
	if err := a.Activate(activatetest.Encode(t, rt), version, 1, activate.Disk); err != nil {
		t.Fatal(err)
	}
	before := o.Live.Load()
	if got := a.InForce().Source; got != activate.Disk {
		t.Errorf("source %q, want disk", got)
	}
	if err := a.Activate(activatetest.Encode(t, rt), version, 5, activate.Stream); err != nil {
		t.Fatal(err)
	}
	if f := a.InForce(); o.Live.Load() != before || f.Table != before || f.Revision != 5 || f.Source != activate.Stream {
		t.Errorf("in force: %+v, want the same table with revision 5 from the stream", f)
	}
	if !a.Confirm(version, 6) || a.InForce().Revision != 6 {
		t.Errorf("confirmed revision 6, in force is %d", a.InForce().Revision)
	}
	if a.Confirm("other", 7) || a.InForce().Revision != 6 {
		t.Errorf("confirmed another version, in force is revision %d", a.InForce().Revision)
	}
}

func TestDraining(t *testing.T) {
	a, _ := newActivator(t, nil)
	port := activatetest.Port(t)
	version := mustActivate(t, a, 1, port, backend1)
	a.Drain()
	if err := a.Ready(); !errors.Is(err, activate.ErrDraining) {
		t.Errorf("ready while draining: %v", err)
	}
	rt, next := activatetest.Table(activatetest.Port(t), backend1)
	if err := a.Activate(activatetest.Encode(t, rt), next, 2, activate.Stream); !errors.Is(err, activate.ErrDraining) {
		t.Errorf("activate while draining: %v", err)
	}
	wantServed(t, port, version) // the loop drains, not the activator
}

func TestConcurrentActivations(t *testing.T) {
	a, o := newActivator(t, nil)
	ports := []uint16{activatetest.Port(t), activatetest.Port(t)}
	var g sync.WaitGroup
	for i := range 8 {
		g.Go(func() {
			for n := range 20 {
				rt, version := activatetest.Table(ports[(i+n)%2], fmt.Sprintf("http://127.0.0.1:%d", 5000+i))
				if err := a.Activate(activatetest.Encode(t, rt), version, uint64(n), activate.Stream); err != nil {
					t.Errorf("activate: %v", err)
				}
				if a.Ready() != nil || a.InForce().Table == nil {
					t.Error("nothing in force")
				}
			}
		})
	}
	g.Wait()
	f := a.InForce()
	if f.Table != o.Live.Load() {
		t.Error("what is in force is not what is served")
	}
	// Listeners of earlier turns may still be closing the port: unlike the real ones,
	// those of this test reset whom they have not accepted.
	port, want := f.Table.Port, f.Table.Version
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		got, err := ask(t, port)
		if got == want {
			return
		}
		if err == nil || time.Now().After(deadline) {
			t.Fatalf("port %d serves %q, %v; want %q", port, got, err, want)
		}
	}
}

func TestMetrics(t *testing.T) {
	a, _ := newActivator(t, nil)
	problems, err := testutil.CollectAndLint(a)
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
	want := func(text string) {
		t.Helper()
		if err := testutil.CollectAndCompare(a, strings.NewReader(text), "dataplane_config_info",
			"dataplane_config_updates_total", "dataplane_config_last_update_successful"); err != nil {
			t.Error(err)
		}
	}
	const help = `# HELP dataplane_config_info The route table in force, in labels; the value is 1.
# TYPE dataplane_config_info gauge
`
	const rest = `# HELP dataplane_config_last_update_successful Whether the newest route table was put in force; 1 before the first.
# TYPE dataplane_config_last_update_successful gauge
dataplane_config_last_update_successful %d
# HELP dataplane_config_updates_total Attempts to put a route table in force, by result: applied or rejected.
# TYPE dataplane_config_updates_total counter
dataplane_config_updates_total{result="applied"} %d
dataplane_config_updates_total{result="rejected"} %d
`
	want(fmt.Sprintf(rest, 1, 0, 0))
	version := mustActivate(t, a, 3, activatetest.Port(t), backend1)
	info := help + fmt.Sprintf("dataplane_config_info{revision=\"3\",source=\"stream\",version=%q} 1\n", version)
	want(info + fmt.Sprintf(rest, 1, 1, 0))
	rt, _ := activatetest.Table(1, backend2)
	if err := a.Activate(activatetest.Encode(t, rt), "wrong", 4, activate.Stream); err == nil {
		t.Fatal("activated")
	}
	want(info + fmt.Sprintf(rest, 0, 1, 1))
	if problems, err := testutil.CollectAndLint(a); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
}
