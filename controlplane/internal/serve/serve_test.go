package serve_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"reverseproxy/controlplane/internal/fleet/fleettest"
	"reverseproxy/controlplane/internal/serve"
	fleetv1 "reverseproxy/proto/fleet/v1"
	"reverseproxy/proto/identity"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// text returns a configuration with n endpoints.
func text(n int, first ...string) string {
	var b strings.Builder
	for _, line := range first {
		b.WriteString(line + "\n")
	}
	b.WriteString("port: 8000\nendpoints:")
	if n == 0 {
		b.WriteString(" []")
	}
	for i := range n {
		fmt.Fprintf(&b, "\n- {from: /%d, pool: [\"http://localhost:5000\"]}", i)
	}
	return b.String() + "\n"
}

// log may be written and read at the same time.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

type running struct {
	fleet               fleetv1.FleetServiceClient
	server, admin, file string
	log                 *log
	reload              chan struct{}
	stop                func()
}

// start runs a control plane on the file.
func start(t *testing.T, file string, change func(*serve.Options)) *running {
	t.Helper()
	r := &running{file: file, log: &log{}, reload: make(chan struct{})}
	bound := make(chan struct{})
	o := serve.Options{
		Config: file, Listen: "127.0.0.1:0", Admin: "127.0.0.1:0", Build: "test", Interval: 5 * time.Millisecond,
		Reload: r.reload, Log: slog.New(slog.NewTextHandler(r.log, nil)),
		Listening: func(grpc, admin string) {
			r.server, r.admin = grpc, admin
			close(bound)
		},
	}
	if change != nil {
		change(&o)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- serve.Run(ctx, o) }()
	select {
	case <-bound:
	case err := <-ended:
		t.Fatalf("did not start: %v", err)
	}
	conn, err := grpc.NewClient("passthrough:///"+r.server, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		t.Fatal(err)
	}
	r.fleet = fleetv1.NewFleetServiceClient(conn)
	r.stop = sync.OnceFunc(func() {
		_ = conn.Close()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("stopped with %v", err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

func save(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func newFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	save(t, path, content)
	return path
}

// status asks; what was saved before is taken into account.
func (r *running) status(t *testing.T) *fleetv1.StatusResponse {
	t.Helper()
	s, err := r.fleet.Status(t.Context(), &fleetv1.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// wait polls the status until the condition holds.
func (r *running) wait(t *testing.T, what string, condition func(*fleetv1.StatusResponse) bool) *fleetv1.StatusResponse {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		s := r.status(t)
		if condition(s) {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("not in %s: %s\n%v\n%s", patience, what, s, r.log)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (r *running) get(t *testing.T, path string) (int, string, http.Header) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + r.admin + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body), resp.Header
}

// metric fails unless the line is in /metrics.
func (r *running) metric(t *testing.T, line string) {
	t.Helper()
	if _, body, _ := r.get(t, "/metrics"); !strings.Contains(body, line+"\n") {
		t.Errorf("/metrics lacks %q", line)
	}
}

func TestAChangeOfTheFileReachesTheFleet(t *testing.T) {
	r := start(t, newFile(t, text(2)), nil)
	dp := fleettest.Start(t, r.server, "a", nil, fleettest.Apply)
	for revision, content := range map[int]string{2: text(3)} {
		save(t, r.file, content)
		s := r.wait(t, "it is applied", func(s *fleetv1.StatusResponse) bool {
			return s.GetRevision() == uint64(revision) && len(s.GetDataplanes()) == 1 &&
				s.GetDataplanes()[0].GetState() == fleetv1.DataPlaneState_DATA_PLANE_STATE_APPLIED
		})
		if s.GetConfig().GetEndpoints() != 3 || !s.GetConfig().GetOk() {
			t.Errorf("got %v", s.GetConfig())
		}
	}
	tables := dp.Tables()
	if got := len(tables[len(tables)-1].GetEndpoints()); got != 3 {
		t.Errorf("the data plane has %d endpoints, want 3", got)
	}
}

func TestAnyErrorKeepsTheLastGoodTable(t *testing.T) {
	r := start(t, newFile(t, text(2)), nil)
	dp := fleettest.Start(t, r.server, "a", nil, fleettest.Apply)
	before := r.wait(t, "it has its table", func(s *fleetv1.StatusResponse) bool {
		return len(s.GetDataplanes()) == 1 && s.GetDataplanes()[0].GetVersion() == s.GetVersion()
	})
	for _, test := range []struct {
		name string
		do   func(t *testing.T)
		want string // in the error
	}{
		{"half written", func(t *testing.T) { save(t, r.file, "port: 8000\nendpoints:\n") }, "endpoints"},
		{"a typo", func(t *testing.T) { save(t, r.file, strings.Replace(text(2), "from", "fron", 1)) }, `did you mean "from"?`},
		{"empty", func(t *testing.T) { save(t, r.file, "") }, "config.yaml:1:1"},
		{"vanished", func(t *testing.T) { _ = os.Remove(r.file) }, "no such file"},
		{"a directory", func(t *testing.T) {
			_ = os.Remove(r.file)
			_ = os.Mkdir(r.file, 0o755)
		}, "not a regular file"},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.do(t)
			s := r.wait(t, "it is refused", func(s *fleetv1.StatusResponse) bool { return strings.Contains(s.GetConfig().GetError(), test.want) })
			if s.GetConfig().GetOk() || s.GetVersion() != before.GetVersion() || s.GetRevision() != 1 {
				t.Errorf("got %v", s)
			}
			r.metric(t, "controlplane_config_last_load_successful 0")
			_ = os.Remove(r.file) // if it is a directory
			save(t, r.file, text(2))
			s = r.wait(t, "it is good again", func(s *fleetv1.StatusResponse) bool { return s.GetConfig().GetOk() })
			if s.GetVersion() != before.GetVersion() || s.GetRevision() != 1 || s.GetConfig().GetError() != "" {
				t.Errorf("got %v", s)
			}
			r.metric(t, "controlplane_config_last_load_successful 1")
		})
	}
	if n := len(dp.Tables()); n != 1 {
		t.Errorf("the data plane was sent %d tables, want the first only", n)
	}
}

func TestEachDistinctErrorIsLoggedOnce(t *testing.T) {
	r := start(t, newFile(t, text(2)), nil)
	refused := func(content, want string) {
		t.Helper()
		save(t, r.file, content)
		r.wait(t, "it is refused", func(s *fleetv1.StatusResponse) bool { return strings.Contains(s.GetConfig().GetError(), want) })
	}
	refused("port: x\nendpoints: []\n", ":1:7:")
	refused("port: x\nendpoints: []\n# edited, and as wrong as before\n", ":1:7:")
	refused("port: x\nendpoints: []\n# again\n", ":1:7:")
	refused("\nport: y\nendpoints: []\n", ":2:7:")
	if n := strings.Count(r.log.String(), "configuration refused"); n != 2 {
		t.Errorf("logged %d times, want 2:\n%s", n, r.log)
	}
}

func TestReloadReadsAtOnce(t *testing.T) {
	r := start(t, newFile(t, text(2)), func(o *serve.Options) { o.Interval = time.Hour })
	save(t, r.file, text(3))
	r.reload <- struct{}{}
	deadline := time.Now().Add(patience)
	for {
		_, body, _ := r.get(t, "/api/v1/status")
		if strings.Contains(body, `"revision": 2`) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(body)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestTheGuardAgainstLostEndpoints(t *testing.T) {
	r := start(t, newFile(t, text(12)), nil)
	save(t, r.file, text(5))
	s := r.wait(t, "it is refused", func(s *fleetv1.StatusResponse) bool { return !s.GetConfig().GetOk() })
	line := regexp.MustCompile(`acknowledgeDrop: *"?[0-9a-f]{8,}"?`).FindString(s.GetConfig().GetError())
	if line == "" || !strings.Contains(s.GetConfig().GetError(), "apply --force") || s.GetRevision() != 1 {
		t.Fatalf("got %v, want both ways to go on", s.GetConfig())
	}
	save(t, r.file, text(5, line))
	r.wait(t, "it is accepted", func(s *fleetv1.StatusResponse) bool { return s.GetRevision() == 2 && s.GetConfig().GetEndpoints() == 5 })

	// By apply: refused as problems, then forced.
	request := &fleetv1.ApplyRequest{Name: "x.yaml", Config: []byte(text(0))}
	a, err := r.fleet.Apply(t.Context(), request)
	if err != nil || len(a.GetProblems()) != 1 || !strings.HasPrefix(a.GetProblems()[0], "x.yaml:1:1: ") {
		t.Fatalf("got %v, %v", a, err)
	}
	request.Force = true
	if a, err = r.fleet.Apply(t.Context(), request); err != nil || a.GetRevision() != 3 || !a.GetChanged() {
		t.Fatalf("got %v, %v", a, err)
	}
	if s := r.status(t); !s.GetConfig().GetOk() || s.GetRevision() != 3 {
		t.Errorf("after the watcher has seen the written file: %v", s)
	}
	if data, err := os.ReadFile(r.file); err != nil || string(data) != text(0) {
		t.Errorf("the file has %q, %v", data, err)
	}
}

func TestApplyEndsAnErrorOfTheFile(t *testing.T) {
	r := start(t, newFile(t, text(2)), nil)
	_ = os.Remove(r.file)
	r.wait(t, "it is missed", func(s *fleetv1.StatusResponse) bool { return !s.GetConfig().GetOk() })
	a, err := r.fleet.Apply(t.Context(), &fleetv1.ApplyRequest{Name: "x.yaml", Config: []byte(text(2))})
	if err != nil || a.GetChanged() || a.GetRevision() != 1 {
		t.Fatalf("got %v, %v", a, err)
	}
	if s := r.status(t); !s.GetConfig().GetOk() || s.GetRevision() != 1 {
		t.Errorf("got %v", s)
	}
}

func TestTheRevisionOutlivesARestart(t *testing.T) {
	file, dir := newFile(t, text(2)), filepath.Join(t.TempDir(), "made", "state")
	withState := func(o *serve.Options) { o.StateDir = dir }
	r := start(t, file, withState)
	for n := 3; n < 6; n++ {
		save(t, file, text(n))
		r.wait(t, "it is loaded", func(s *fleetv1.StatusResponse) bool { return s.GetRevision() == uint64(n-1) })
	}
	r.stop()
	r = start(t, file, withState)
	if got := r.status(t).GetRevision(); got != 4 {
		t.Errorf("the same content has revision %d after a restart, want 4", got)
	}
	// A data plane that knows better is believed, and that is kept as well.
	version := r.status(t).GetVersion()
	fleettest.Start(t, r.server, "a", &routetablev1.State{Version: version, Revision: 40}, fleettest.Apply)
	r.wait(t, "it is adopted", func(s *fleetv1.StatusResponse) bool { return s.GetRevision() == 40 })
	r.stop()
	save(t, file, text(7))
	r = start(t, file, withState)
	if got := r.status(t).GetRevision(); got != 41 {
		t.Errorf("content changed meanwhile has revision %d, want 41", got)
	}
}

func TestAdmin(t *testing.T) {
	r := start(t, newFile(t, text(2)), nil)
	fleettest.Start(t, r.server, "a", nil, fleettest.Apply)
	r.wait(t, "it has applied", func(s *fleetv1.StatusResponse) bool {
		return len(s.GetDataplanes()) == 1 && s.GetDataplanes()[0].GetVersion() == s.GetVersion()
	})
	for path, want := range map[string]struct {
		code int
		part string
	}{
		"/":                            {200, "<!doctype html>"},
		"/healthz":                     {200, "ok"},
		"/readyz":                      {200, "ready"},
		"/api/v1/status":               {200, `"lastLoad": "ok"`},
		"/api/v1/endpoints":            {200, `"name":"/1","takes":"/1","poolSize":1`},
		"/api/v1/endpoints?endpoint=x": {404, "x"},
		"/api/v1/rollout":              {200, "null"},
		"/api/v1/history":              {200, `"origin": "file"`},
		"/api/v1/diff?from=1":          {200, `"changes": []`},
		"/api/v1/diff?from=7":          {404, "revision 7"},
		"/metrics":                     {200, "go_goroutines"},
		"/nowhere":                     {404, ""},
	} {
		if code, body, _ := r.get(t, path); code != want.code || !strings.Contains(body, want.part) {
			t.Errorf("%s: %d %q, want %d with %q", path, code, body, want.code, want.part)
		}
	}
	if _, _, h := r.get(t, "/api/v1/status"); h.Get("Content-Type") != "application/json" {
		t.Errorf("content type %q", h.Get("Content-Type"))
	}

	_, body, _ := r.get(t, "/metrics")
	problems, err := promlint.New(strings.NewReader(body)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	for _, line := range []string{
		`controlplane_dataplanes{state="applied"} 1`, `controlplane_config_loads_total{result="ok"} 1`,
		`controlplane_config_loads_total{result="error"} 0`, `controlplane_config_last_load_successful 1`,
		`controlplane_pushes_total{result="applied"} 1`, `controlplane_convergence_seconds_count 1`,
	} {
		r.metric(t, line)
	}
	for _, name := range []string{`controlplane_build_info{`, `controlplane_config_info{revision="1",version="`} {
		if !strings.Contains(body, name) {
			t.Errorf("/metrics lacks %s", name)
		}
	}
}

func TestPlaintextBeyondThisMachineNeedsADecision(t *testing.T) {
	for _, test := range []struct {
		address string
		ok      bool
	}{
		{"127.0.0.1:1", true}, {"127.1.2.3:1", true}, {"[::1]:1", true}, {"localhost:1", true},
		{"0.0.0.0:1", false}, {":1", false}, {"[::]:1", false}, {"192.0.2.1:1", false}, {"example.com:1", false},
		{"127.0.0.1", false}, {"", false},
	} {
		if err := serve.CheckListen("--listen", test.address, identity.Paths{}, false); (err == nil) != test.ok {
			t.Errorf("%q: %v, want ok %t", test.address, err, test.ok)
		}
	}
	if err := serve.CheckListen("--listen", ":1", identity.Paths{}, true); err != nil {
		t.Errorf("with --insecure: %v", err)
	}
}

// Neither a stream nor a connection that never says anything holds up a clean
// stop.
func TestStopWithOpenStreams(t *testing.T) {
	r := start(t, newFile(t, text(2)), nil)
	fleettest.Start(t, r.server, "a", nil, fleettest.Apply)
	idle, err := net.Dial("tcp", r.server)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	r.stop()
}
