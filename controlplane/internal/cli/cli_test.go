package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"reverseproxy/controlplane/internal/cli"
	"reverseproxy/controlplane/internal/fleet/fleettest"
	"reverseproxy/controlplane/internal/serve"
	"reverseproxy/controlplane/internal/status"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

var update = flag.Bool("update", false, "write the golden files")

// testdata is absolute: a test may work in another directory.
var testdata = func() string {
	path, err := filepath.Abs("testdata")
	if err != nil {
		panic(err)
	}
	return path
}()

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait; nothing is concluded from its length.
const patience = 20 * time.Second

const good = `port: 8000
endpoints:
- name: shop
  from: /index
  host: shop.example.com
  methods: [GET]
  pool: ["http://localhost:5000/index-proxied"]
- name: assets
  from: /assets/*
  pool: ["http://localhost:5003/static?v=1", {url: "http://localhost:5004/static", weight: 3}]
- name: beta
  from: /index
  headers: {x-beta: "1"}
  pool: ["http://localhost:5001"]
`

// buffer may be written by a server while a test reads it.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// result of a command.
type result struct {
	code           int
	stdout, stderr string
}

// run executes a command line in the directory of the test.
func run(t *testing.T, args ...string) result { return runWith(t, t.Context(), "", args...) }

func runWith(t *testing.T, ctx context.Context, stdin string, args ...string) result {
	t.Helper()
	var stdout, stderr buffer
	env := cli.Env{
		Stdin: strings.NewReader(stdin), Stdout: &stdout, Stderr: &stderr, Author: "ann@host", Build: "test",
		Serve: serve.Run,
	}
	code := cli.Run(ctx, env, args)
	return result{code, stdout.String(), stderr.String()}
}

// begin executes a command line that goes on by itself, and returns what it prints and, in
// the end, its result.
func begin(ctx context.Context, args ...string) (stdout *buffer, ended <-chan result) {
	var stderr buffer
	stdout = new(buffer)
	done := make(chan result, 1)
	go func() {
		code := cli.Run(ctx, cli.Env{Stdin: strings.NewReader(""), Stdout: stdout, Stderr: &stderr, Build: "test"}, args)
		done <- result{code, stdout.String(), stderr.String()}
	}()
	return stdout, done
}

// has reports whether the exit status is the one given and both outputs contain their
// parts.
func (r result) has(code int, stdout, stderr string) bool {
	return r.code == code && strings.Contains(r.stdout, stdout) && strings.Contains(r.stderr, stderr)
}

// want fails unless the exit status is the one given and both outputs contain
// their parts.
func (r result) want(t *testing.T, code int, stdout, stderr string) {
	t.Helper()
	if !r.has(code, stdout, stderr) {
		t.Errorf("exit status %d, want %d\nstdout (want %q):\n%s\nstderr (want %q):\n%s", r.code, code, stdout, r.stdout, stderr, r.stderr)
	}
}

// golden compares an output with testdata, after the parts that differ from run
// to run have been replaced.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join(testdata, name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(got, "\n"), strings.Split(string(want), "\n")); diff != "" {
		t.Errorf("%s (-got +want):\n%s", path, diff)
	}
}

// controlPlane is a served one.
type controlPlane struct {
	server, admin, file string
	log                 *buffer
	reload              chan struct{}
	stop                func() result
}

// start serves the configuration with the built command.
func start(t *testing.T, config string, flags ...string) *controlPlane {
	t.Helper()
	return startLooking(t, 5*time.Millisecond, config, flags...)
}

// startLooking is start with the time between two looks at the file.
func startLooking(t *testing.T, interval time.Duration, config string, flags ...string) *controlPlane {
	t.Helper()
	c := &controlPlane{log: &buffer{}, file: write(t, "running.yaml", config), reload: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	bound := make(chan struct{})
	var stdout buffer
	env := cli.Env{Stdout: &stdout, Stderr: c.log, Build: "test", Serve: func(ctx context.Context, o serve.Options) error {
		o.Interval = interval
		o.Reload = c.reload
		o.Listening = func(grpc, admin string) {
			c.server, c.admin = grpc, admin
			close(bound)
		}
		return serve.Run(ctx, o)
	}}
	ended := make(chan int, 1)
	args := append([]string{"serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", c.file}, flags...)
	go func() { ended <- cli.Run(ctx, env, args) }()
	c.stop = sync.OnceValue(func() result {
		cancel()
		return result{<-ended, stdout.String(), c.log.String()}
	})
	t.Cleanup(func() { c.stop() })
	select {
	case <-bound:
	case code := <-ended:
		ended <- code
		t.Fatalf("exit status %d\n%s", code, c.log)
	}
	return c
}

// cli asks this control plane.
func (c *controlPlane) cli(t *testing.T, args ...string) result {
	t.Helper()
	return run(t, append([]string{args[0], "--server", c.server}, args[1:]...)...)
}

// inVain asks for what does not come, with a --timeout, and fails unless it ends as
// wanted. How long that takes tells nothing: there is more time as long as too little has
// come that does.
func (c *controlPlane) inVain(t *testing.T, stdout, stderr string, args ...string) result {
	t.Helper()
	for timeout := 300 * time.Millisecond; ; timeout *= 2 {
		r := c.cli(t, append(args, "--timeout", timeout.String())...)
		if r.has(1, stdout, stderr) || timeout > patience {
			r.want(t, 1, stdout, stderr)
			return r
		}
	}
}

// status asks over HTTP.
func (c *controlPlane) status(t *testing.T) status.Status {
	t.Helper()
	var s status.Status
	if err := json.Unmarshal([]byte(c.get(t, "/api/v1/status")), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func (c *controlPlane) get(t *testing.T, path string) string {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get("http://" + c.admin + path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %v\n%s", path, r.Status, err, body)
	}
	return string(body)
}

// waitStatus waits until the condition holds.
func (c *controlPlane) waitStatus(t *testing.T, what string, condition func(status.Status) bool) status.Status {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		s := c.status(t)
		if condition(s) {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("not in %s: %s\n%+v\n%s", patience, what, s, c.log)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// waitKnown waits until all of them are connected and settled.
func (c *controlPlane) waitKnown(t *testing.T, n int) {
	t.Helper()
	c.waitStatus(t, fmt.Sprintf("%d data planes have settled", n), func(s status.Status) bool {
		settled := 0
		for _, d := range s.DataPlanes {
			if d.State == "applied" || d.State == "rejected" {
				settled++
			}
		}
		return settled == n
	})
}

// write puts a file into a directory of the test.
func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// replace saves a file as one should.
func replace(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func TestUsage(t *testing.T) {
	for _, test := range []struct {
		args   string
		code   int
		stdout string
		stderr string
	}{
		{"--help", 0, "--log-level", ""},
		{"help", 0, "controlplane validate", ""},
		{"help status", 0, "--watch", ""},
		{"serve --help", 0, "--state-dir", ""},
		{"validate --help", 0, "every problem", ""},
		{"explain --help", 0, "--header", ""},
		{"plan --help", 0, "3 live traffic would be lost", ""},
		{"plan", 2, "", "CONFIG is missing"},
		{"apply --help", 0, "--yes", ""},
		{"status -h", 0, "--expect", ""},
		{"--version", 0, "controlplane test", ""},
		{"status --version", 0, "controlplane test", ""},
		{"", 2, "", "CONFIG is missing"},
		{"serve", 2, "", "CONFIG is missing"},
		{"serve a.yaml b.yaml", 2, "", "one CONFIG"},
		{"--listen :1 status", 2, "", "not a loopback address"},
		{"--listen 127.0.0.1:1 status x", 2, "", "status must come first"},
		{"--no-such-flag x.yaml", 2, "", "unknown flag"},
		{"--log-level loud x.yaml", 2, "", "--log-level"},
		{"--log-format xml x.yaml", 2, "", "--log-format"},
		{"--listen 0.0.0.0:0 x.yaml", 2, "", "--insecure"},
		{"--listen nonsense x.yaml", 2, "", "host:port"},
		{"--listen 127.0.0.1:99999 x.yaml", 2, "", "not a number from 0 to 65535"},
		{"--admin nonsense x.yaml", 2, "", "host:port"},
		{"--admin 127.0.0.1:http x.yaml", 2, "", "not a number from 0 to 65535"},
		{"status --server 127.0.0.1:x", 2, "", "not a number from 0 to 65535"},
		{"validat x.yaml", 2, "", "the commands are serve, validate, explain, status, top, plan, apply, rollout, history, show, diff, rollback, drain, undrain, certs"},
		{"help", 0, "explain", ""},
		{"help status", 0, "--expect", ""},
		{"help nonsense", 2, "", `"nonsense" is no command`},
		{"--forget-after 0s x.yaml", 2, "", "--forget-after"},
		{"--forget-after 10s x.yaml", 2, "", "--forget-after (10s) must be longer than --apply-deadline (10s)"},
		{"validate", 2, "", "CONFIG is missing"},
		{"explain", 2, "", "one URL"},
		{"explain ftp://x/", 2, "", "ftp://x/"},
		{"explain -H nocolon http://x/", 2, "", "Name: value"},
		{"explain -X GE%20T,; http://x/", 2, "", "method"},
		{"status extra", 2, "", "endpoint NAME"},
		{"status endpoint", 2, "", "endpoint NAME"},
		{"status endpoint shop --watch", 2, "", "--watch"},
		{"status --endpoints", 2, "", "-o json"},
		{"top --help", 0, "--once", ""},
		{"top x", 2, "", "no arguments"},
		{"top -n 0", 2, "", "--rows"},
		{"drain --help", 0, "--force", ""},
		{"drain", 2, "", "backend URL"},
		{"drain http://localhost:5000", 2, "", "backend URL"},
		{"drain backend", 2, "", "backend URL"},
		{"drain backend http://h --timeout 1s", 2, "", "--wait"},
		{"drain backend http://h --list", 2, "", "--list"},
		{"undrain --help", 0, "--wait", ""},
		{"undrain x y", 2, "", "backend URL"},
		{"status -o xml", 2, "", "neither table nor json"},
		{"status --watch --wait", 2, "", "exclude"},
		{"status --timeout 1s", 2, "", "--wait"},
		{"status --server example.com:1", 2, "", "--insecure"},
		{"apply", 2, "", "CONFIG is missing"},
		{"apply x.yaml --wait --timeout 0s", 2, "", "--timeout"},
	} {
		t.Run(test.args, func(t *testing.T) {
			run(t, strings.Fields(test.args)...).want(t, test.code, test.stdout, test.stderr)
		})
	}
}

// A script must not take the first half of an answer for all of it.
func TestAnOutputThatIsNotCompleteIsAFailure(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("left out: there is no /dev/full: %v", err)
	}
	defer full.Close()
	c := start(t, good)
	for _, args := range [][]string{
		{"validate", c.file}, {"explain", "--config", c.file, "/"}, {"explain", "--config", c.file, "-o", "json", "/"},
		{"status", "--server", c.server}, {"status", "--server", c.server, "-o", "json"}, {"--help"},
	} {
		var stderr buffer
		code := cli.Run(t.Context(), cli.Env{Stdin: strings.NewReader(""), Stdout: full, Stderr: &stderr, Build: "test"}, args)
		result{code, "", stderr.String()}.want(t, 1, "", "no space left on device")
	}
}

func TestADirectoryIsNoConfiguration(t *testing.T) {
	r := run(t, "validate", ".")
	r.want(t, 1, "", "read .: is a directory")
	if strings.Count(r.stderr, "read .") != 1 {
		t.Errorf("said twice: %s", r.stderr)
	}
}

func TestValidate(t *testing.T) {
	file := write(t, "good.yaml", good)
	t.Run("good", func(t *testing.T) {
		r := run(t, "validate", file)
		r.want(t, 0, file+": ok, 3 endpoints, version ", "")
		if r.stderr != "" {
			t.Errorf("stderr: %s", r.stderr)
		}
	})
	t.Run("standard input", func(t *testing.T) {
		runWith(t, t.Context(), good, "validate", "-").want(t, 0, "stdin: ok, 3 endpoints", "")
	})
	t.Run("all problems of all files", func(t *testing.T) {
		one := write(t, "one.yaml", "port: 8000\nendpoints:\n- fron: /x\n  pool: [http://h]\n- from: y\n  pool: []\n")
		two := write(t, "two.yaml", "prot: 1\nendpoints: []\n")
		r := run(t, "validate", one, file, two, filepath.Join(t.TempDir(), "none.yaml"))
		r.want(t, 1, "good.yaml: ok", "none.yaml: no such file")
		for _, part := range []string{"one.yaml:3:3: ", "one.yaml:5:9: ", "one.yaml:6:9: ", "two.yaml:1:1: "} {
			if !strings.Contains(r.stderr, part) {
				t.Errorf("stderr lacks %q:\n%s", part, r.stderr)
			}
		}
		if strings.Contains(r.stdout, "one.yaml") {
			t.Errorf("problems on standard output:\n%s", r.stdout)
		}
	})
}

func TestExplain(t *testing.T) {
	file := write(t, "c.yaml", good)
	c := start(t, good)
	for _, test := range []struct {
		name string
		args []string
	}{
		{"exact", []string{"http://shop.example.com/index?q=1"}},
		{"prefix", []string{"http://any:8000/assets/a%2Fb?x=1"}},
		{"header", []string{"-H", "X-Beta: 1", "http://other/index"}},
		{"method", []string{"-X", "POST", "http://shop.example.com/index"}},
		{"host-field", []string{"-H", "host: shop.example.com", "/index"}},
		{"nowhere", []string{"http://shop.example.com/nowhere"}},
		{"above-root", []string{"http://shop.example.com/../x"}},
		{"metrics", []string{"http://any/metrics"}},
		{"json", []string{"-o", "json", "http://shop.example.com/index?q=1"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			local := run(t, append([]string{"explain", "--config", file}, test.args...)...)
			local.want(t, 0, "", "")
			golden(t, "explain-"+test.name+".txt", local.stdout)
			if remote := c.cli(t, append([]string{"explain"}, test.args...)...); remote != local {
				t.Errorf("asked of the control plane: %+v\nby the file: %+v", remote, local)
			}
		})
	}
	t.Run("bad file", func(t *testing.T) {
		run(t, "explain", "--config", write(t, "bad.yaml", "port: x\n"), "/").want(t, 1, "", "bad.yaml:1:7: ")
	})
}

func TestNoControlPlane(t *testing.T) {
	c := start(t, good)
	c.stop()
	for _, args := range [][]string{{"status"}, {"status", "--wait", "--timeout", "1s"}, {"apply", c.file}, {"apply", "--wait", c.file}, {"explain", "/"}} {
		r := c.cli(t, args...)
		r.want(t, 1, "", "no control plane can be reached at "+c.server+" (connection refused); is it running?")
		if lines := strings.Count(r.stderr, "\n"); lines != 1 || strings.Contains(r.stderr, "rpc error") {
			t.Errorf("%v: not one clear line:\n%s", args, r.stderr)
		}
	}
}

func TestStatusWaitsForControlPlane(t *testing.T) {
	before := start(t, good)
	before.stop()
	done := make(chan result)
	go func() { done <- before.cli(t, "status", "--wait", "--expect", "0") }()
	after := start(t, good, "--listen", before.server)
	r := <-done
	r.want(t, 0, after.file, "")
}

// Whoever comes back first after a restart is not the whole fleet.
func TestWaitOutlivesARestartOfTheControlPlane(t *testing.T) {
	for _, test := range []struct {
		name           string
		returns        bool
		code           int
		stdout, stderr string
	}{
		{"one does not come back", false, 1, "it has not come back since the control plane was started again", "1 of 2 data planes did not apply"},
		{"all come back", true, 0, "applied by 2 data planes", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			first := start(t, good)
			fleettest.Start(t, first.server, "a", nil, fleettest.Apply)
			release := make(chan struct{})
			fleettest.Start(t, first.server, "b", nil, func(rt *routetablev1.RouteTable) []string {
				if rt.GetPort() == 8001 {
					<-release
				}
				return nil
			})
			first.waitKnown(t, 2)
			next := strings.Replace(good, "8000", "8001", 1)
			file := write(t, "next.yaml", next)
			timeout := "3s"
			if test.returns {
				timeout = "20s"
			}
			stdout, ended := begin(t.Context(), "apply", "--server", first.server, file, "--wait", "--timeout", timeout)
			first.waitStatus(t, "it is said to be running", func(status.Status) bool { return strings.Contains(stdout.String(), "revision 2 (version") })
			first.stop()
			close(release)

			second := start(t, next, "--listen", first.server)
			fleettest.Start(t, second.server, "a", nil, fleettest.Apply)
			second.waitKnown(t, 1)
			if test.returns {
				fleettest.Start(t, second.server, "b", nil, fleettest.Apply)
			}
			(<-ended).want(t, test.code, test.stdout, test.stderr)
		})
	}
}

// A large file takes seconds to load, and one that is being written never
// settles: until then nothing can be said about what was saved.
func TestStatusWaitsForAChangeThatIsNotLoadedYet(t *testing.T) {
	c := startLooking(t, 200*time.Millisecond, good)
	fleettest.Start(t, c.server, "a", nil, fleettest.Apply)
	c.waitKnown(t, 1)
	var err error
	write := func(i int) {
		text := fmt.Sprintf("# %d\n%s", i, strings.Replace(good, "8000", "8001", 1))
		err = errors.Join(err, os.WriteFile(c.file+".new", []byte(text), 0o644), os.Rename(c.file+".new", c.file))
	}
	write(0)
	stop := time.After(2 * time.Second)
	written := make(chan struct{})
	go func() {
		defer close(written)
		for i := 1; ; i++ {
			select {
			case <-stop:
				return
			default:
				write(i)
			}
		}
	}()
	r := c.cli(t, "status", "--wait", "--timeout", "20s")
	<-written
	if err != nil {
		t.Fatal(err)
	}
	r.want(t, 0, "revision 2", "")
}

func TestServe(t *testing.T) {
	t.Run("an invalid file", func(t *testing.T) {
		bad := write(t, "bad.yaml", "port: 70000\nendpoints:\n- from: index\n  pool: []\n")
		r := run(t, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", bad)
		for _, part := range []string{"bad.yaml:1:7: ", "bad.yaml:3:9: ", "bad.yaml:4:9: "} {
			r.want(t, 1, "", part)
		}
	})
	t.Run("no file", func(t *testing.T) {
		run(t, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", filepath.Join(t.TempDir(), "none.yaml")).want(t, 1, "", "no such file")
	})
	t.Run("taken addresses", func(t *testing.T) {
		c := start(t, good)
		run(t, "--listen", c.server, "--admin", "127.0.0.1:0", c.file).want(t, 1, "", c.server)
		run(t, "--listen", "127.0.0.1:0", "--admin", c.admin, c.file).want(t, 1, "", c.admin)
	})
	t.Run("a clean stop", func(t *testing.T) {
		c := start(t, good)
		fleettest.Start(t, c.server, "a", nil, fleettest.Apply)
		c.waitKnown(t, 1)
		c.stop().want(t, 0, "", "msg=stopping")
	})
	t.Run("what it logs", func(t *testing.T) {
		c := start(t, good, "--log-format", "json")
		fleettest.Start(t, c.server, "a", nil, fleettest.Apply)
		c.waitKnown(t, 1)
		for _, part := range []string{
			`"msg":"listening","grpc":"` + c.server + `","admin":"` + c.admin + `"`,
			`"msg":"configuration loaded"`, `"revision":1,"endpoints":3`, `"msg":"data plane connected","id":"a"`, `"msg":"data plane applied","id":"a"`,
		} {
			if !strings.Contains(c.log.String(), part) {
				t.Errorf("the log lacks %s:\n%s", part, c.log)
			}
		}
	})
}

// masked replaces what differs from run to run.
func masked(c *controlPlane, s string) string {
	s = strings.ReplaceAll(s, c.file, "running.yaml")
	s = regexp.MustCompile(`accepted \S+( ago)?`).ReplaceAllString(s, "accepted now")
	return regexp.MustCompile(`\d+s ago`).ReplaceAllString(s, "now   ")
}

func rejectPort(port uint32) fleettest.Decide {
	return func(rt *routetablev1.RouteTable) []string {
		if rt.GetPort() == port {
			return []string{fmt.Sprintf("port %d: address already in use", port)}
		}
		return nil
	}
}

func TestStatus(t *testing.T) {
	c := start(t, good)
	golden(t, "status-nobody.txt", masked(c, c.cli(t, "status").stdout))

	fleettest.Start(t, c.server, "edge-1", nil, fleettest.Apply)
	fleettest.Start(t, c.server, "edge-2", nil, rejectPort(8000))
	c.waitKnown(t, 2)
	r := c.cli(t, "status")
	r.want(t, 0, "", "")
	golden(t, "status.txt", masked(c, r.stdout))

	r = c.cli(t, "status", "-o", "json")
	r.want(t, 0, "", "")
	var fromCLI, fromHTTP map[string]any
	if err := errors.Join(json.Unmarshal([]byte(r.stdout), &fromCLI), json.Unmarshal([]byte(c.get(t, "/api/v1/status")), &fromHTTP)); err != nil {
		t.Fatal(err)
	}
	for _, m := range []map[string]any{fromCLI, fromHTTP} {
		for _, d := range m["dataplanes"].([]any) {
			d.(map[string]any)["lastContactSeconds"] = 0
		}
	}
	if diff := cmp.Diff(fromCLI, fromHTTP); diff != "" {
		t.Errorf("status -o json (-) and GET /api/v1/status (+):\n%s", diff)
	}

	c.cli(t, "status", "--wait", "--timeout", "10s").want(t, 1, "address already in use", "1 of 2 data planes rejected version")
}

func TestStatusWait(t *testing.T) {
	c := start(t, good)
	c.inVain(t, "No data plane", ": 0 of 1 expected data planes are known", "status", "--wait")
	fleettest.Start(t, c.server, "a", nil, fleettest.Apply)
	c.cli(t, "status", "--wait", "--timeout", "20s").want(t, 0, "applied", "")
	c.inVain(t, "applied", ": 1 of 2 expected", "status", "--wait", "--expect", "2")
	replace(t, c.file, "port: x\n")
	c.cli(t, "status", "--wait", "--timeout", "20s").want(t, 1, "running.yaml:1:7", "is not the running configuration")
	replace(t, c.file, strings.Replace(good, "8000", "8001", 1))
	c.cli(t, "status", "--wait", "--timeout", "20s").want(t, 0, "revision 2", "")
}

func TestStatusWatch(t *testing.T) {
	c := start(t, good)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stdout, ended := begin(ctx, "status", "--server", c.server, "--watch")
	c.waitStatus(t, "it is shown again", func(status.Status) bool { return strings.Count(stdout.String(), "revision 1") == 2 })
	cancel()
	(<-ended).want(t, 0, "No data plane", "")
}

func TestApply(t *testing.T) {
	c := start(t, good)
	fleettest.Start(t, c.server, "a", nil, fleettest.Apply)
	fleettest.Start(t, c.server, "b", nil, rejectPort(8002))
	c.waitKnown(t, 2)

	next := strings.Replace(good, "8000", "8001", 1)
	r := c.cli(t, "apply", write(t, "next.yaml", next), "--wait", "--expect", "2")
	r.want(t, 0, "applied by 2 data planes", "")
	r.want(t, 0, "next.yaml: revision 2 (version ", "")
	if data, err := os.ReadFile(c.file); err != nil || string(data) != next {
		t.Errorf("the watched file has\n%s, %v", data, err)
	}
	c.cli(t, "apply", write(t, "next.yaml", "# again\n"+next)).want(t, 0, "was the running configuration already", "")

	t.Run("from standard input", func(t *testing.T) {
		runWith(t, t.Context(), good, "apply", "--server", c.server, "-").want(t, 0, "stdin: revision 3", "")
	})
	t.Run("problems", func(t *testing.T) {
		before := c.status(t)
		r := c.cli(t, "apply", write(t, "bad.yaml", "port: x\nendpoints: 1\n"), "--wait")
		r.want(t, 1, "", "bad.yaml:1:7: ")
		r.want(t, 1, "", "bad.yaml:2:12: ")
		r.want(t, 1, "", "bad.yaml was refused; nothing has changed")
		if after := c.status(t); after.Revision != before.Revision || after.Config.LastLoad != "ok" {
			t.Errorf("status changed: %+v", after)
		}
		c.cli(t, "apply", "-o", "json", write(t, "bad.yaml", "port: x\nendpoints: []\n")).want(t, 1, `"problems": [`, "")
	})
	t.Run("the guard", func(t *testing.T) {
		nothing := write(t, "nothing.yaml", "port: 8000\nendpoints: []\n")
		c.cli(t, "apply", nothing).want(t, 1, "", "--force")
		c.cli(t, "apply", nothing, "--force", "--wait").want(t, 0, "applied by 2 data planes", "")
		c.cli(t, "apply", write(t, "good.yaml", good), "--wait").want(t, 0, "applied by 2", "")
	})
	t.Run("one rejects", func(t *testing.T) {
		third := write(t, "third.yaml", strings.Replace(good, "8000", "8002", 1))
		r := c.cli(t, "apply", third, "--wait")
		r.want(t, 1, "port 8002: address already in use", "1 of 2 data planes rejected version")
		out := strings.ReplaceAll(masked(c, r.stdout), third, "third.yaml")
		golden(t, "apply-rejected.txt", out)
		c.cli(t, "apply", third, "--wait", "-o", "json").want(t, 1, `"applied": false`, "")
	})
	t.Run("one vanished", func(t *testing.T) {
		gone := fleettest.Start(t, c.server, "gone", nil, fleettest.Apply)
		c.waitKnown(t, 3)
		gone.Stop()
		c.waitStatus(t, "it is missed", func(s status.Status) bool { return len(s.DataPlanes) == 3 && s.DataPlanes[2].State == "disconnected" })
		fourth := write(t, "fourth.yaml", strings.Replace(good, "8000", "8003", 1))
		r := c.inVain(t, "disconnected", ": 1 of 3 data planes did not apply version", "apply", fourth, "--wait")
		r.want(t, 1, "vanished: it has no connection", "")
	})
}

func TestApplyAtOnce(t *testing.T) {
	c := start(t, good)
	fleettest.Start(t, c.server, "a", nil, fleettest.Apply)
	fleettest.Start(t, c.server, "b", nil, rejectPort(8002))
	c.waitKnown(t, 2)
	before := c.status(t)
	plain := func(r result, file string) string {
		out := strings.ReplaceAll(masked(c, r.stdout), file, "next.yaml")
		return regexp.MustCompile(`within \S+`).ReplaceAllString(out, "within 1.5ms")
	}

	refused := write(t, "refused.yaml", strings.Replace(good, "8000", "8002", 1))
	r := c.cli(t, "apply", refused, "--atomic")
	r.want(t, 1, "", "refused.yaml is not ready on every data plane; nothing has changed")
	golden(t, "apply-unprepared.txt", plain(r, refused))
	c.cli(t, "apply", refused, "--atomic", "-o", "json").want(t, 1, `"unprepared": [`, "")
	c.cli(t, "apply", refused, "--atomic", "--expect", "3").want(t, 1, "at least 3 are expected", "")
	if after := c.status(t); after.Revision != before.Revision || after.Version != before.Version {
		t.Errorf("status changed: %+v", after)
	}
	if data, err := os.ReadFile(c.file); err != nil || string(data) != good {
		t.Errorf("the watched file has\n%s, %v", data, err)
	}

	next := write(t, "next.yaml", strings.Replace(good, "8000", "8001", 1))
	r = c.cli(t, "apply", next, "--atomic", "--wait", "--expect", "2")
	r.want(t, 0, "applied by 2 data planes", "")
	golden(t, "apply-atomic.txt", plain(r, next))
	c.cli(t, "apply", next, "--atomic", "-o", "json").want(t, 0, `"changed": false`, "")
	c.cli(t, "apply", next, "--atomic", "--steps", "1").want(t, 2, "", "exclude each other")
	c.cli(t, "apply", next, "--expect", "1").want(t, 2, "", "--wait")

	// Several take turns.
	var all sync.WaitGroup
	for i := range 5 {
		all.Go(func() {
			c.cli(t, "apply", write(t, "x.yaml", strings.Replace(good, "8000", fmt.Sprint(9000+i), 1)), "--atomic").want(t, 0, "all data planes changed within", "")
		})
	}
	all.Wait()
	if after := c.status(t); after.Revision != before.Revision+6 {
		t.Errorf("revision %d after 6 changes of %d", after.Revision, before.Revision)
	}
}

// Whatever the file says about steps: a change at once has none, and ends those of another.
func TestApplyAtOnceDuringARollOut(t *testing.T) {
	c := start(t, good)
	a := fleettest.Start(t, c.server, "a", nil, fleettest.Apply)
	b := fleettest.Start(t, c.server, "b", nil, fleettest.Apply)
	c.cli(t, "status", "--wait", "--expect", "2").want(t, 0, "", "")
	steps := "rollout: {steps: [1, 100%], bake: 1h}\n"
	staged := write(t, "staged.yaml", steps+strings.Replace(good, "8000", "8001", 1))
	c.cli(t, "apply", staged).want(t, 0, "is rolled out in steps", "")
	c.cli(t, "apply", staged, "--atomic").want(t, 1, "", "a roll-out of the same content goes on")

	next := write(t, "next.yaml", steps+strings.Replace(good, "8000", "8003", 1))
	c.cli(t, "apply", next, "--atomic", "--wait").want(t, 0, "all data planes changed within", "")
	for _, d := range []*fleettest.DataPlane{a, b} {
		tables := d.Tables()
		if port := tables[len(tables)-1].GetPort(); port != 8003 {
			t.Errorf("port %d is the last that it was sent", port)
		}
	}
	c.cli(t, "rollout", "status").want(t, 0, "superseded", "")
}

// A file and `apply` that change at the same time end in one of both states, and
// file and fleet agree.
func TestApplyAndEditsAtTheSameTime(t *testing.T) {
	c := start(t, good)
	fleettest.Start(t, c.server, "a", nil, fleettest.Apply)
	text := func(port int) string { return strings.Replace(good, "8000", fmt.Sprint(port), 1) }
	var both sync.WaitGroup
	both.Go(func() {
		for i := range 20 {
			replace(t, c.file, text(9000+i))
		}
	})
	both.Go(func() {
		for i := range 20 {
			c.cli(t, "apply", write(t, "x.yaml", text(10000+i))).want(t, 0, "revision", "")
		}
	})
	both.Wait()
	c.cli(t, "status", "--wait").want(t, 0, "applied", "")
	data, err := os.ReadFile(c.file)
	if err != nil {
		t.Fatal(err)
	}
	want := run(t, "validate", write(t, "want.yaml", string(data))).stdout
	if v := c.status(t).Version; !strings.Contains(want, "version "+v[:12]) {
		t.Errorf("running version %s, the file: %s", v, want)
	}
}
