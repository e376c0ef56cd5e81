package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"reverseproxy/dataplane/internal/activate/activatetest"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// The life of a data plane: a table from the control plane, traffic, a drain that
// lets a request finish, and a second life from disk without a control plane.
func TestServe(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery == "slow" {
			close(arrived)
			<-release
		}
		fmt.Fprintf(w, "hello %s", r.URL.Path)
	}))
	defer backend.Close()
	port := activatetest.Port(t)
	rt, version := activatetest.Table(port, backend.URL)
	cp := startControlPlane(t, rt, version)
	stateDir := t.TempDir()
	url := fmt.Sprintf("http://127.0.0.1:%d", port)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	get := func(url string) string {
		res, err := client.Get(url)
		if err != nil {
			return err.Error()
		}
		defer res.Body.Close()
		p, err := io.ReadAll(res.Body)
		return fmt.Sprintf("%d %s %v", res.StatusCode, p, err)
	}

	dp := start(t, "--controlplane", cp.address, "--admin", "127.0.0.1:0", "--id", "dp", "--address", "127.0.0.1", "--state-dir", stateDir)
	admin := "http://" + dp.logged(`msg=listening admin=(\S+)`)
	dp.logged(`msg=serving address=(\S+) version=` + version + ` revision=5 source=stream`)
	for _, tt := range []struct{ url, want string }{ // in this order: the request, then its count
		{url + "/a", "200 hello /a <nil>"},
		{url + "/b", "404 "},
		{url + "/metrics", `dataplane_requests_total{code="200",endpoint="/a",method="GET"}`},
		{admin + "/readyz", "200 ready\n <nil>"},
		{admin + "/metrics", `dataplane_config_info{revision="5",source="stream",version="` + version + `"} 1`},
	} {
		// Counters may lag behind the answer they count.
		eventually(t, func() error {
			if got := get(tt.url); !strings.Contains(got, tt.want) {
				return fmt.Errorf("%s: %.200q…, want %q", tt.url, got, tt.want)
			}
			return nil
		})
	}
	page := get(admin + "/metrics")
	if !strings.Contains(page, "dataplane_build_info{") || !strings.Contains(page, "go_goroutines") {
		t.Errorf("build or Go metrics are missing in %s", page)
	}
	page = strings.TrimSuffix(strings.TrimPrefix(page, "200 "), " <nil>")
	if problems, err := promlint.New(strings.NewReader(page)).Lint(); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}

	var inFlight sync.WaitGroup
	var answer string
	inFlight.Go(func() { answer = get(url + "/a?slow") })
	<-arrived
	dp.stop()
	cp.wantGoodbye(t)
	eventually(t, func() error {
		if got := get(admin + "/readyz"); !strings.HasPrefix(got, "503 ") {
			return fmt.Errorf("readyz while draining: %s", got)
		}
		return nil
	})
	close(release)
	inFlight.Wait()
	if answer != "200 hello /a <nil>" {
		t.Errorf("request in flight: %s", answer)
	}
	if err := dp.wait(); err != nil {
		t.Errorf("stopped with %v", err)
	}

	cp.server.Stop()
	dp = start(t, "--controlplane", cp.address, "--admin", "127.0.0.1:0", "--id", "dp", "--address", "127.0.0.1", "--state-dir", stateDir)
	dp.logged(`msg=serving address=(\S+) version=` + version + ` revision=5 source=disk`)
	if got, want := get(url+"/a"), "200 hello /a <nil>"; got != want {
		t.Errorf("from disk: %s, want %s", got, want)
	}
	dp.stop()
	if err := dp.wait(); err != nil {
		t.Errorf("stopped with %v", err)
	}
}

// Lines about requests, in a file that is moved away and asked for again, and the
// rest of them at the end.
func TestAccessLog(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer backend.Close()
	path := filepath.Join(t.TempDir(), "access.log")
	rt, _ := activatetest.Table(activatetest.Port(t), backend.URL)
	rt.AccessLog = &routetablev1.AccessLog{Path: path, Format: routetablev1.AccessLogFormat_ACCESS_LOG_FORMAT_JSON, SamplePerMillion: 1_000_000}
	rt.RequestId = true
	version := routetable.Version(rt)
	cp := startControlPlane(t, rt, version)
	dp := start(t, "--controlplane", cp.address, "--admin", "127.0.0.1:0", "--address", "127.0.0.1", "--state-dir", t.TempDir())
	address := dp.logged(`msg=serving address=(\S+)`)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	var ids []string
	request := func() {
		t.Helper()
		res, err := client.Get("http://" + address + "/a?b")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		ids = append(ids, res.Header.Get("X-Request-Id"))
	}
	lines := func(path string) (ids []string) {
		t.Helper()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			var l struct{ Target, Endpoint, Backend, Version, RequestID string }
			if err := json.Unmarshal([]byte(line), &l); err != nil || l.Target != "/a?b" || l.Endpoint != "/a" || l.Backend != backend.URL || l.Version != version {
				t.Errorf("%v, %+v in %s", err, l, line)
			}
			ids = append(ids, l.RequestID)
		}
		return ids
	}
	there := func() error {
		_, err := os.Stat(path)
		return err
	}
	request()
	eventually(t, there)
	eventually(t, func() error {
		if got := lines(path); len(got) != 1 {
			return fmt.Errorf("lines of %v", got)
		}
		return nil
	})
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, there)
	request()
	request()
	dp.stop()
	if err := dp.wait(); err != nil {
		t.Errorf("stopped with %v", err)
	}
	if got := slices.Concat(lines(path+".1"), lines(path)); !slices.Equal(got, ids) || len(lines(path)) != 2 || ids[0] == "" {
		t.Errorf("logged %q, want %q", got, ids)
	}
}

// A request that outlasts the drain time is cut; that is still a clean stop.
func TestDrainTimeout(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	backend := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(arrived)
		<-release
	}))
	defer backend.Close()
	defer close(release)
	rt, version := activatetest.Table(activatetest.Port(t), backend.URL)
	cp := startControlPlane(t, rt, version)
	dp := start(t, "--controlplane", cp.address, "--admin", "127.0.0.1:0", "--address", "127.0.0.1", "--state-dir", t.TempDir(), "--drain-timeout", "10ms")
	address := dp.logged(`msg=serving address=(\S+)`)
	var g sync.WaitGroup
	defer g.Wait()
	g.Go(func() {
		c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		if res, err := c.Get("http://" + address + "/a"); err == nil {
			res.Body.Close()
			t.Errorf("the cut request got %s", res.Status)
		}
	})
	<-arrived
	dp.stop()
	if err := dp.wait(); err != nil {
		t.Errorf("stopped with %v", err)
	}
	dp.logged(`msg="requests cut at the end of the drain time" error="(1 .*)"`)
}

func TestAdminPortIsTaken(t *testing.T) {
	port, _ := activatetest.TakenPort(t)
	dp := start(t, "--admin", fmt.Sprintf("127.0.0.1:%d", port), "--state-dir", t.TempDir())
	if err := dp.wait(); err == nil || !strings.Contains(err.Error(), "admin server") {
		t.Errorf("got %v, want an error about the admin server", err)
	}
}

// The table asks for the port of the admin server: rejected, with a clear reason.
func TestAdminPortInTheTable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	rt, version := activatetest.Table(uint16(port), "http://127.0.0.1:1")
	cp := startControlPlane(t, rt, version)
	dp := start(t, "--controlplane", cp.address, "--admin", fmt.Sprintf("127.0.0.1:%d", port), "--state-dir", t.TempDir())
	dp.logged(`msg="route table rejected" .*error="(port: .*--admin.*)"`)
	dp.stop()
	if err := dp.wait(); err != nil {
		t.Errorf("stopped with %v", err)
	}
}

// running is a data plane in this process.
type running struct {
	t    *testing.T
	log  log
	stop context.CancelFunc
	done chan error
	wait func() error
}

// start runs a data plane until the test ends or stop.
func start(t *testing.T, args ...string) *running {
	t.Helper()
	s, err := parse(args, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	r := &running{t: t, done: make(chan error, 1)}
	var ctx context.Context
	ctx, r.stop = context.WithCancel(context.Background())
	go func() { r.done <- serve(ctx, s, slog.New(slog.NewTextHandler(&r.log, nil))) }()
	r.wait = sync.OnceValue(func() error { return <-r.done })
	t.Cleanup(func() {
		r.stop()
		r.wait()
		if t.Failed() {
			t.Log(r.log.String())
		}
	})
	return r
}

// logged waits for a line that matches and returns its first group.
func (r *running) logged(pattern string) string {
	r.t.Helper()
	re := regexp.MustCompile(pattern)
	var found []string
	eventually(r.t, func() error {
		if found = re.FindStringSubmatch(r.log.String()); found == nil {
			return fmt.Errorf("nothing logged like %s", pattern)
		}
		return nil
	})
	return found[len(found)-1]
}

// log is a bytes.Buffer for several goroutines.
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

// controlPlane sends one table to whoever asks.
type controlPlane struct {
	routetablev1.UnimplementedRouteTableServiceServer
	address string
	server  *grpc.Server
	table   *routetablev1.Chunk
	goodbye chan struct{}
	ids     chan string // of who has said hello
}

func startControlPlane(t *testing.T, rt *routetablev1.RouteTable, version string, options ...grpc.ServerOption) *controlPlane {
	t.Helper()
	wire, err := proto.Marshal(rt)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(wire)
	z.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cp := &controlPlane{
		address: l.Addr().String(), server: grpc.NewServer(options...), goodbye: make(chan struct{}, 10), ids: make(chan string, 10),
		table: &routetablev1.Chunk{
			Version: version, Revision: 5, Count: 1, Encoding: routetablev1.Encoding_ENCODING_GZIP, DecodedSize: uint64(len(wire)), Data: b.Bytes(),
		},
	}
	routetablev1.RegisterRouteTableServiceServer(cp.server, cp)
	var g sync.WaitGroup
	g.Go(func() { cp.server.Serve(l) })
	t.Cleanup(func() {
		cp.server.Stop()
		g.Wait()
	})
	return cp
}

// Subscribe implements the service.
func (cp *controlPlane) Subscribe(stream grpc.BidiStreamingServer[routetablev1.SubscribeRequest, routetablev1.SubscribeResponse]) error {
	for {
		m, err := stream.Recv()
		if err != nil {
			return nil
		}
		switch m.GetMessage().(type) {
		case *routetablev1.SubscribeRequest_Hello:
			cp.ids <- m.GetHello().GetId()
			err = stream.Send(&routetablev1.SubscribeResponse{Message: &routetablev1.SubscribeResponse_Chunk{Chunk: cp.table}})
		case *routetablev1.SubscribeRequest_Heartbeat:
			err = stream.Send(&routetablev1.SubscribeResponse{Message: &routetablev1.SubscribeResponse_Alive{Alive: &routetablev1.Alive{}}})
		case *routetablev1.SubscribeRequest_Goodbye:
			cp.goodbye <- struct{}{}
		}
		if err != nil {
			return err
		}
	}
}

func (cp *controlPlane) wantGoodbye(t *testing.T) {
	t.Helper()
	select {
	case <-cp.goodbye:
	case <-time.After(patience):
		t.Fatal("no goodbye")
	}
}

// eventually polls until f returns nil.
func eventually(t *testing.T, f func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
