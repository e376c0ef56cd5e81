package admin_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"

	"reverseproxy/dataplane/internal/activate"
	"reverseproxy/dataplane/internal/activate/activatetest"
	"reverseproxy/dataplane/internal/admin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start serves an admin server for a new activator and returns its base URL.
func start(t *testing.T) (*activate.Activator, string) {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	ao := activatetest.Options(t)
	ao.Log = log
	a := activate.New(ao)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(a, ao.State.Metrics)
	s, err := admin.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var g sync.WaitGroup
	g.Go(func() {
		if err := s.Serve(admin.Options{Activator: a, Metrics: registry, Log: log}); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		s.Close(ctx)
		g.Wait()
	})
	return a, "http://" + s.Addr().String()
}

func get(t *testing.T, url string) (status int, contentType, body string) {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	p, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header.Get("Content-Type"), string(p)
}

func TestReadiness(t *testing.T) {
	a, url := start(t)
	want := func(status int, text string) {
		t.Helper()
		if got, _, body := get(t, url+"/readyz"); got != status || !strings.Contains(body, text) || strings.Count(body, "\n") != 1 {
			t.Errorf("readyz: %d %q, want %d and one line with %q", got, body, status, text)
		}
		if got, _, _ := get(t, url+"/healthz"); got != 200 {
			t.Errorf("healthz: %d", got)
		}
	}
	want(503, "no route table")
	rt, version := activatetest.Table(activatetest.Port(t), "http://127.0.0.1:5001")
	if err := a.Activate(activatetest.Encode(t, rt), version, 1, activate.Stream); err != nil {
		t.Fatal(err)
	}
	want(200, "ready")
	if err := a.Activate(activatetest.Encode(t, rt), "wrong", 2, activate.Stream); err == nil {
		t.Fatal("activated")
	}
	want(200, "ready")
	a.Drain()
	want(503, "draining")
}

func TestConfig(t *testing.T) {
	a, url := start(t)
	type object = map[string]any
	config := func() object {
		t.Helper()
		status, contentType, body := get(t, url+"/config")
		if status != 200 || contentType != "application/json" {
			t.Errorf("config: %d %s", status, contentType)
		}
		var v object
		if err := json.Unmarshal([]byte(body), &v); err != nil {
			t.Fatalf("%v in %s", err, body)
		}
		return v
	}
	if diff := cmp.Diff(object{"endpoints": []any{}}, config()); diff != "" {
		t.Errorf("before a table (-want +got):\n%s", diff)
	}
	port := activatetest.Port(t)
	rt, version := activatetest.Table(port, "http://127.0.0.1:5001/?a=1&b=2", "http://127.0.0.1:5002")
	if err := a.Activate(activatetest.Encode(t, rt), version, 3, activate.Disk); err != nil {
		t.Fatal(err)
	}
	got := config()
	at, _ := got["appliedAt"].(string)
	if _, err := time.Parse(time.RFC3339, at); err != nil {
		t.Errorf("appliedAt: %v", err)
	}
	delete(got, "appliedAt")
	want := object{
		"version": version, "revision": 3.0, "source": "disk", "port": float64(port), "address": fmt.Sprintf("127.0.0.1:%d", port),
		"endpoints": []any{
			object{"name": "/a", "pool": []any{object{"url": "http://127.0.0.1:5001/?a=1&b=2", "weight": 1.0}}},
			object{"name": "/b", "pool": []any{object{"url": "http://127.0.0.1:5002", "weight": 1.0}}},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
}

func TestPages(t *testing.T) {
	_, url := start(t)
	for _, tt := range []struct {
		method, path string
		status       int
		contains     string
	}{
		{"GET", "/", 200, "/readyz"},
		{"HEAD", "/metrics", 200, ""},
		{"GET", "/metrics", 200, "dataplane_config_last_update_successful 1"},
		{"GET", "/nothing", 404, ""},
		{"POST", "/config", 405, ""},
	} {
		r, err := http.NewRequest(tt.method, url+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		p, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != tt.status || !strings.Contains(string(p), tt.contains) {
			t.Errorf("%s %s: %d %q, want %d with %q", tt.method, tt.path, res.StatusCode, p, tt.status, tt.contains)
		}
	}
}

func TestPageForTheProxyPort(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	made := prometheus.NewCounter(prometheus.CounterOpts{Name: "made_total", Help: "Help."})
	registry.MustRegister(made)
	page := admin.NewPage(registry)
	for i := range 3 {
		made.Inc()
		contentType, body := page.Get()
		want := fmt.Sprintf("# HELP made_total Help.\n# TYPE made_total counter\nmade_total %d\n", i+1)
		if !strings.HasPrefix(contentType, "text/plain; version=0.0.4") || string(body) != want {
			t.Errorf("page %d: %s %q, want %q", i, contentType, body, want)
		}
	}
	// Nobody gets a page from before the call.
	var g sync.WaitGroup
	for range 8 {
		g.Go(func() {
			for range 100 {
				made.Inc()
				var m dto.Metric
				if err := made.Write(&m); err != nil {
					t.Error(err)
					return
				}
				_, body := page.Get()
				var got float64
				if _, err := fmt.Sscanf(string(body[strings.LastIndex(string(body), " "):]), "%g", &got); err != nil || got < m.GetCounter().GetValue() {
					t.Errorf("page shows %v (%v), the counter was at %v before", got, err, m.GetCounter().GetValue())
				}
			}
		})
	}
	g.Wait()
}

func TestListenOnATakenPort(t *testing.T) {
	port, _ := activatetest.TakenPort(t)
	if _, err := admin.Listen(fmt.Sprintf("127.0.0.1:%d", port)); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("got %v, want an address in use", err)
	}
}

func TestCloseOfAServerThatWasNeverServed(t *testing.T) {
	s, err := admin.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := s.Addr().String()
	s.Close(t.Context())
	s, err = admin.Listen(address)
	if err != nil {
		t.Fatalf("the port is still open: %v", err)
	}
	s.Close(t.Context())
}
