package config_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"reverseproxy/controlplane/internal/config"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

var update = flag.Bool("update", false, "rewrite the expected errors in testdata; read the diff before committing")

// TestProblems loads each testdata/x.bad.yaml and compares the report with
// x.bad.err.
func TestProblems(t *testing.T) {
	files, err := filepath.Glob("testdata/*.bad.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("found %d cases: %v", len(files), err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(strings.TrimSuffix(name, ".bad.yaml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			c, err := config.Load(name, data)
			if c != nil || err == nil {
				t.Fatalf("Load = %v, %v; want a nil configuration and an error", c, err)
			}
			checkPlaces(t, data, err)
			got := err.Error() + "\n"
			golden := strings.TrimSuffix(file, ".yaml") + ".err"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(got, string(want)); diff != "" {
				t.Errorf("report (-got +want):\n%s", diff)
			}
		})
	}
}

// checkPlaces fails unless err is a sorted list of problems whose places are in
// the file and whose text is one line each.
func checkPlaces(t *testing.T, data []byte, err error) {
	t.Helper()
	var list *config.Errors
	if !errors.As(err, &list) || len(list.Problems) == 0 {
		t.Fatalf("error %T %v, want problems", err, err)
	}
	lines := strings.Split(string(data), "\n")
	var before config.Position
	for _, p := range list.Problems {
		switch {
		case p.Line < 1 || p.Line > len(lines), p.Column < 1 || p.Column > len([]rune(lines[p.Line-1]))+1:
			t.Errorf("%s\nis not in the file of %d lines", p, len(lines))
		case p.Line < before.Line || p.Line == before.Line && p.Column < before.Column:
			t.Errorf("%s\ncomes after a later place", p)
		case p.Message == "" || strings.ContainsAny(p.String(), "\r\n"):
			t.Errorf("%q is not one line", p)
		}
		before = p.Position
	}
}

// minimal is the smallest file, and the oldest, as the README has it. It must stay valid
// for ever and mean this.
const minimal = `port: 8000
endpoints:
- from: /index
  pool:
  - http://localhost:5000/index-proxied
  - http://localhost:5002/index-proxied
- from: /home
  pool:
  - http://localhost:5001/home-proxied
`

var everyFailure = []string{"502", "503", "504", "connectFailure", "reset", "timeout"}

// defaults is what a file means that sets only required keys.
var defaults = config.Config{
	Port: 8000,
	Defaults: config.Defaults{
		Timeouts:     config.Timeouts{Connect: time.Second, Response: 30 * time.Second, Idle: 90 * time.Second, Request: config.Unlimited},
		PreserveHost: true,
		Queue:        config.Queue{Size: new(uint32), Timeout: time.Second},
		RateLimit:    config.RateLimit{Per: time.Second},
		Panic:        config.UseAll,
		Retry:        config.Retry{Attempts: 1, On: everyFailure, PerTryTimeout: config.Unlimited, BudgetPercent: 20},
	},
	MetricsOnProxyPort: true,
	Limits: config.Limits{
		MaxHeadBytes: 65536, MaxHeaders: 100, MaxURIBytes: 8192,
		HeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxConnections: 10000,
	},
	AccessLog:       config.AccessLog{Format: "json", SamplePerMillion: 1_000_000},
	ResolveInterval: 10 * time.Second,
	Rollout:         atOnce,
}

// atOnce is how a change goes through the fleet when the file says nothing about it.
var atOnce = config.Rollout{
	Steps: []config.Step{{Percent: 100}}, Bake: 30 * time.Second, MinRequests: 100, OnNoTraffic: "continue",
	AbortOn: config.AbortOn{Rejected: 1, Disconnected: 1, ErrorRate: 2, LatencyP99: 2},
}

func TestMinimalFile(t *testing.T) {
	want := defaults
	want.Endpoints = []config.Endpoint{
		{Position: config.Position{Line: 3, Column: 3}, Name: "/index", Path: "/index", Pool: []config.Backend{
			{URL: "http://localhost:5000/index-proxied", Weight: 1}, {URL: "http://localhost:5002/index-proxied", Weight: 1}}},
		{Position: config.Position{Line: 7, Column: 3}, Name: "/home", Path: "/home", Pool: []config.Backend{
			{URL: "http://localhost:5001/home-proxied", Weight: 1}}},
	}
	if diff := cmp.Diff(load(t, minimal), &want); diff != "" {
		t.Errorf("Load (-got +want):\n%s", diff)
	}
}

func TestAllKeys(t *testing.T) {
	no, eight, none := false, uint32(8), uint32(0)
	got := load(t, `limits: {maxHeadBytes: 1Mi, maxHeaders: 7, maxURIBytes: 1024, headerTimeout: 1m30s, idleTimeout: 250ms, maxConnections: 9}
metrics: {onProxyPort: false}
defaults: {preserveHost: false, timeouts: {connect: 2s, response: 1h, idle: 3s, request: 24h}, maxRequests: 6, queue: {size: 8, timeout: 5s}, rateLimit: {requests: 7, per: 1m, burst: 9, key: clientIP}, panic: refuse, loadBalancing: {policy: LeastRequest}, retry: {attempts: 10, budget: 100%}}
acknowledgeDrop: 00001234
accessLog: {path: /var/log/access.log, format: combined, sample: 0.25}
requestId: true
dns: {interval: 1m}
rollout: {steps: [1, 5, 25%, 100%], canary: {canary: "yes", zone: a}, bake: 1m, minRequests: 7, onNoTraffic: pause, abortOn: {rejected: 0, disconnected: 2, errorRate: 0.5%, latencyP99: 1.5x}}
port: 65535
endpoints:
- name: the shop
  from: /assets/*
  host: [Shop.Example.com, "*.example.com", shop.example.com]
  methods: [HEAD, GET, HEAD]
  headers: {X-Beta: "1", a-first: ""}
  timeouts: {response: 5s, request: 0s}
  preserveHost: false
  rateLimit: {requests: 1, key: "header:X-A"}
  retry: {attempts: 2, on: [timeout, 503, "502", reset, reset], perTryTimeout: 250ms, budget: 1%}
  panic: useAll
  loadBalancing: {policy: ConsistentHash, on: "header:X-User", slowStart: 30s}
  maxRequests: 0
  queue: {size: 0}
  pool: [{url: http://localhost:5000, backup: true}, {url: "http://[::1]:81/x?y=z", weight: 0, maxRequests: 4}]
`)
	want := &config.Config{
		Port: 65535,
		Defaults: config.Defaults{
			Timeouts:    config.Timeouts{Connect: 2 * time.Second, Response: time.Hour, Idle: 3 * time.Second, Request: 24 * time.Hour},
			MaxRequests: 6, Queue: config.Queue{Size: &eight, Timeout: 5 * time.Second},
			RateLimit: config.RateLimit{Requests: 7, Per: time.Minute, Burst: 9, ByClient: true},
			Panic:     config.Refuse, LoadBalancing: config.LoadBalancing{Policy: routetablev1.Policy_POLICY_LEAST_REQUEST},
			Retry: config.Retry{Attempts: 10, On: everyFailure, PerTryTimeout: config.Unlimited, BudgetPercent: 100},
		},
		AcknowledgeDrop: "00001234",
		Limits: config.Limits{MaxHeadBytes: 1 << 20, MaxHeaders: 7, MaxURIBytes: 1024,
			HeaderTimeout: 90 * time.Second, IdleTimeout: 250 * time.Millisecond, MaxConnections: 9},
		AccessLog: config.AccessLog{Path: "/var/log/access.log", Format: "combined", SamplePerMillion: 250_000},
		RequestID: true, ResolveInterval: time.Minute,
		Rollout: config.Rollout{
			Steps:  []config.Step{{Count: 1}, {Count: 5}, {Percent: 25}, {Percent: 100}},
			Canary: map[string]string{"canary": "yes", "zone": "a"}, Bake: time.Minute, MinRequests: 7, OnNoTraffic: "pause",
			AbortOn: config.AbortOn{Disconnected: 2, ErrorRate: 0.5, LatencyP99: 1.5},
		},
		Endpoints: []config.Endpoint{{
			Position: config.Position{Line: 11, Column: 3},
			Name:     "the shop", Path: "/assets", Prefix: true,
			Hosts:        []string{"*.example.com", "shop.example.com"},
			Methods:      []string{"GET", "HEAD"},
			Headers:      []config.Header{{Name: "a-first"}, {Name: "x-beta", Value: "1"}},
			Timeouts:     config.Timeouts{Response: 5 * time.Second, Request: config.Unlimited},
			PreserveHost: &no,
			MaxRequests:  &none,
			Queue:        config.Queue{Size: &none},
			RateLimit:    &config.RateLimit{Requests: 1, Per: time.Second, ByHeader: "x-a"},
			Retry: config.Retry{
				Attempts: 2, On: []string{"502", "503", "reset", "timeout"}, PerTryTimeout: 250 * time.Millisecond, BudgetPercent: 1,
			},
			Panic: config.UseAll,
			LoadBalancing: &config.LoadBalancing{
				Policy: routetablev1.Policy_POLICY_CONSISTENT_HASH, SlowStart: 30 * time.Second,
				On: &config.Key{Kind: routetablev1.KeyKind_KEY_KIND_HEADER, Name: "x-user"},
			},
			Pool: []config.Backend{{URL: "http://localhost:5000", Weight: 1, Backup: true}, {URL: "http://[::1]:81/x?y=z", MaxRequests: 4}},
		}},
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("Load (-got +want):\n%s", diff)
	}
}

// TestValues shows what single values of a valid file mean.
func TestValues(t *testing.T) {
	endpoint := func(lines string) string {
		return "port: 8000\nendpoints:\n- from: /a\n  pool: [http://h]\n" + lines
	}
	tests := []struct {
		name, file string
		got        func(*config.Config) any
		want       any
	}{
		{"explicitly no endpoints", "port: 1\nendpoints: []\n", func(c *config.Config) any { return len(c.Endpoints) }, 0},
		{"JSON", `{"port": 8000, "endpoints": [{"from": "/a", "pool": ["http://h"]}]}`, func(c *config.Config) any { return c.Endpoints[0].Path }, "/a"},
		{"byte order mark", "\ufeffport: 8000\nendpoints: []\n", func(c *config.Config) any { return c.Port }, uint16(8000)},
		{"CR LF", "port: 8000\r\nendpoints: []\r\n", func(c *config.Config) any { return c.Port }, uint16(8000)},
		{"document markers", "---\nport: 8000\nendpoints: []\n...\n", func(c *config.Config) any { return c.Port }, uint16(8000)},
		{"YAML 1.1 words are texts", endpoint("  headers: {x-a: no, x-b: on, x-c: 12:30}\n"),
			func(c *config.Config) any { return c.Endpoints[0].Headers },
			[]config.Header{{Name: "x-a", Value: "no"}, {Name: "x-b", Value: "on"}, {Name: "x-c", Value: "12:30"}}},
		{"acknowledgement that looks like a float", "port: 1\nendpoints: []\nacknowledgeDrop: 1234e567\n",
			func(c *config.Config) any { return c.AcknowledgeDrop }, "1234e567"},
		{"acknowledgement in upper case", "port: 1\nendpoints: []\nacknowledgeDrop: ABCDEF01\n",
			func(c *config.Config) any { return c.AcknowledgeDrop }, "abcdef01"},
		{"log on standard output", "port: 1\nendpoints: []\naccessLog: {path: stdout}\n",
			func(c *config.Config) any { return c.AccessLog }, config.AccessLog{Path: "stdout", Format: "json", SamplePerMillion: 1_000_000}},
		{"no log, written down", "port: 1\nendpoints: []\naccessLog: {path: \"\"}\n",
			func(c *config.Config) any { return c.AccessLog.Path }, ""},
		{"smallest sample", "port: 1\nendpoints: []\naccessLog: {path: stdout, sample: 0.0000010}\n",
			func(c *config.Config) any { return c.AccessLog.SamplePerMillion }, uint32(1)},
		{"sample of one", "port: 1\nendpoints: []\naccessLog: {path: stdout, sample: 1.00}\n",
			func(c *config.Config) any { return c.AccessLog.SamplePerMillion }, uint32(1_000_000)},
		{"one host", endpoint("  host: A.example\n"), func(c *config.Config) any { return c.Endpoints[0].Hosts }, []string{"a.example"}},
		{"root prefix", "port: 1\nendpoints: [{from: /*, pool: [http://h]}]", func(c *config.Config) any { return c.Endpoints[0].Path }, ""},
		{"text in block style", "port: 1\nendpoints:\n- from: >-\n    /a\n  pool: [http://h]\n", func(c *config.Config) any { return c.Endpoints[0].Path }, "/a"},
		{"null acknowledged", "port: 1\nendpoints: []\nacknowledgeDrop: \"\"\n", func(c *config.Config) any { return c.AcknowledgeDrop }, ""},
		{"anchored pool", "port: 1\nendpoints:\n- {from: /a, pool: &p [http://a, http://b]}\n- {from: /b, pool: *p}\n",
			func(c *config.Config) any { return c.Endpoints[1].Pool }, []config.Backend{{URL: "http://a", Weight: 1}, {URL: "http://b", Weight: 1}}},
		{"merge key: own keys win, before or after it",
			"port: 1\nendpoints:\n- &base {from: /a, host: a.example, methods: [GET], pool: [http://a]}\n- {host: b.example, <<: *base, from: /b}\n",
			func(c *config.Config) any { return c.Endpoints[1].Name }, "b.example/b"},
		{"merge key: earlier mappings win",
			"port: 1\ndefaults:\n  timeouts:\n    <<: [{connect: 2s}, {connect: 3s, idle: 4s}]\nendpoints: []\n",
			func(c *config.Config) any { return c.Defaults.Timeouts },
			config.Timeouts{Connect: 2 * time.Second, Response: 30 * time.Second, Idle: 4 * time.Second, Request: config.Unlimited}},
		{"merge key: nested",
			"port: 1\nendpoints:\n- &a {from: /a, timeouts: &t {idle: 1s}, pool: [http://h]}\n- &b {<<: *a, from: /b}\n- {<<: *b, from: /c, timeouts: {<<: *t, connect: 2s}}\n",
			func(c *config.Config) any { return c.Endpoints[2].Timeouts }, config.Timeouts{Connect: 2 * time.Second, Idle: time.Second}},
		{"key: client", endpoint("  loadBalancing: {on: clientIP, policy: ConsistentHash}\n"),
			func(c *config.Config) any { return *c.Endpoints[0].LoadBalancing.On }, config.Key{Kind: routetablev1.KeyKind_KEY_KIND_CLIENT_IP}},
		{"key: path", endpoint("  loadBalancing: {policy: ConsistentHash, on: path}\n"),
			func(c *config.Config) any { return *c.Endpoints[0].LoadBalancing.On }, config.Key{Kind: routetablev1.KeyKind_KEY_KIND_PATH}},
		{"key: the letter case of a cookie counts", endpoint("  loadBalancing: {policy: ConsistentHash, on: \"cookie:Shop\"}\n"),
			func(c *config.Config) any { return *c.Endpoints[0].LoadBalancing.On },
			config.Key{Kind: routetablev1.KeyKind_KEY_KIND_COOKIE, Name: "Shop"}},
		{"round robin, written down", endpoint("  loadBalancing: {policy: RoundRobin, on: \"\", slowStart: 0s}\n"),
			func(c *config.Config) any { return *c.Endpoints[0].LoadBalancing }, config.LoadBalancing{}},
		{"tests", "port: 1\nendpoints: []\ntests:\n- name: n\n  request: {url: \"/a?b\", method: PUT, headers: {X-B: \"2\", x-a: \"\"}}\n  expect: {status: 404, endpoint: none}\n" +
			"- {request: {url: http://h}, expect: {backendPath: /x, location: /y}}\n",
			func(c *config.Config) any { return c.Tests }, []config.Test{
				{Position: config.Position{Line: 4, Column: 3}, Name: "n", Method: "PUT", URL: "/a?b",
					Headers: []config.Header{{Name: "x-a"}, {Name: "x-b", Value: "2"}},
					Expect: []config.Expectation{
						{Position: config.Position{Line: 6, Column: 20}, Kind: config.ExpectStatus, Value: "404"},
						{Position: config.Position{Line: 6, Column: 35}, Kind: config.ExpectEndpoint, Value: "none"},
					}},
				{Position: config.Position{Line: 7, Column: 3}, Method: "GET", URL: "http://h", Expect: []config.Expectation{
					{Position: config.Position{Line: 7, Column: 52}, Kind: config.ExpectBackendPath, Value: "/x"},
					{Position: config.Position{Line: 7, Column: 66}, Kind: config.ExpectLocation, Value: "/y"},
				}},
			}},
		{"quoted merge key is a header", endpoint("  headers: {\"x\": \"<<\"}\n"),
			func(c *config.Config) any { return c.Endpoints[0].Headers }, []config.Header{{Name: "x", Value: "<<"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.got(load(t, tt.file)), tt.want); diff != "" {
				t.Errorf("(-got +want):\n%s", diff)
			}
		})
	}
}

func TestDerivedNames(t *testing.T) {
	long := strings.Repeat("a", 300)
	tests := []struct {
		name      string
		endpoints []string
		want      []string
	}{
		{"path", []string{"from: /index", "from: /assets/*", "from: /*"}, []string{"/index", "/assets/*", "/*"}},
		{"host and path", []string{"{from: /a, host: shop.example.com}", `{from: /a, host: [b.example, "*.a.example"]}`},
			[]string{"shop.example.com/a", "*.a.example,b.example/a"}},
		{"conditions are left out while nothing else has the name", []string{"{from: /a, methods: [GET]}"}, []string{"/a"}},
		{"conditions tell apart", []string{"{from: /a, methods: [HEAD, GET]}", "from: /a", `{from: /a, headers: {x-b: "2", x-a: "1"}}`},
			[]string{"/a GET,HEAD", "/a", "/a x-a=1 x-b=2"}},
		{"a given name is not taken", []string{"{name: /a, from: /b}", "{from: /a, methods: [GET]}"}, []string{"/a", "/a GET"}},
		{"control characters", []string{"from: /a", `{from: /a, headers: {x: "1\t2"}}`}, []string{"/a", `/a x="1\t2"`}},
		{"long paths stay distinct", []string{"from: /" + long + "b", "from: /" + long + "c"},
			[]string{"/" + long[:190] + "~e487010a", "/" + long[:190] + "~dc25c3ef"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := "port: 8000\nendpoints:\n"
			for _, e := range tt.endpoints {
				if e[0] == '{' {
					e = e[1 : len(e)-1]
				}
				file += "- {" + e + ", pool: [http://h]}\n"
			}
			var got []string
			for _, e := range load(t, file).Endpoints {
				got = append(got, e.Name)
			}
			if diff := cmp.Diff(got, tt.want); diff != "" {
				t.Errorf("names (-got +want):\n%s", diff)
			}
		})
	}
}

func TestErrorsAreBounded(t *testing.T) {
	file := "port: 8000\nendpoints:\n" + strings.Repeat("- {}\n", 20_000)
	_, err := config.Load("f", []byte(file))
	var list *config.Errors
	if !errors.As(err, &list) {
		t.Fatal(err)
	}
	if got := len(list.Problems) + list.Omitted; got != 40_000 {
		t.Errorf("%d problems, want two per endpoint", got)
	}
	lines := strings.Split(err.Error(), "\n")
	if got, want := lines[len(lines)-1], "and 39000 more problems"; len(lines) != 1001 || got != want {
		t.Errorf("%d lines, the last %q; want 1001 and %q", len(lines), got, want)
	}
}

func TestFileTooLarge(t *testing.T) {
	_, err := config.Load("f.yaml", make([]byte, 64<<20+1))
	const want = "f.yaml:1:1: file: the file has 67108865 bytes; at most 64 MiB (67108864 bytes) are allowed"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// TestHostileFiles: none of these may take long or much memory.
func TestHostileFiles(t *testing.T) {
	wide := "port: 1\nendpoints:\n- {from: /a, pool: &p [" + strings.Repeat("http://h,", 100_000) + "http://h]}\n"
	tests := map[string]string{
		"wide aliases":   wide + strings.Repeat("- {from: /b, pool: *p}\n", 1_000),
		"deep lists":     "port: 1\nendpoints: " + strings.Repeat("[", 100_000),
		"deep mappings":  "port: 1\nendpoints: " + strings.Repeat("{a: ", 100_000),
		"deep blocks":    "port: 1\nendpoints:\n" + strings.Repeat("- ", 100_000),
		"merge chain":    "port: 1\nendpoints: []\ndefaults: " + strings.Repeat("{<<: ", 9_000) + "{}" + strings.Repeat("}", 9_000),
		"merge itself":   "port: 1\nendpoints: []\ndefaults: &d {<<: *d}\n",
		"many keys":      "port: 1\nendpoints:\n- " + strings.Repeat("from: /a\n  ", 50_000),
		"many documents": strings.Repeat("---\n", 100_000),
	}
	for name, file := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := config.Load("f", []byte(file))
			if name == "merge chain" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil {
				t.Fatal("no error")
			}
			checkPlaces(t, []byte(file), err)
		})
	}
}

func load(t *testing.T, file string) *config.Config {
	t.Helper()
	c, err := config.Load("test.yaml", []byte(file))
	if err != nil {
		t.Fatalf("Load: %v\nfile:\n%s", err, file)
	}
	return c
}

// TestSyntaxErrorOfLongFile: finding the words for an error must not look at all
// lines again and again.
func TestSyntaxErrorOfLongFile(t *testing.T) {
	file := "port 8000\n" + strings.Repeat("\n", 200_000) + "endpoints: []\n"
	_, err := config.Load("f", []byte(file))
	const want = `f:1:1: file: not valid YAML: "port 8000" is no "key: value"`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}
