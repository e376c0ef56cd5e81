package compile_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/testing/protocmp"

	"reverseproxy/controlplane/internal/compile"
	"reverseproxy/controlplane/internal/config"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

var update = flag.Bool("update", false, "rewrite the expected tables in testdata; read the diff before committing")

// TestCompile compiles each testdata/x.in.yaml and compares the table with
// x.out.txtpb.
func TestCompile(t *testing.T) {
	files, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("found %d cases: %v", len(files), err)
	}
	for _, file := range append(files, "../../../configs/full.yaml") {
		base := strings.TrimSuffix(strings.TrimSuffix(filepath.Base(file), ".yaml"), ".in")
		t.Run(base, func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := table(t, string(data))
			if err := routetable.Validate(got); err != nil {
				t.Errorf("the table is invalid: %v", err)
			}
			golden := filepath.Join("testdata", base+".out.txtpb")
			if *update {
				text := prototext.MarshalOptions{Multiline: true, Indent: "  "}.Format(got)
				// The library varies its spaces on purpose; keep diffs readable.
				text = strings.ReplaceAll(text, ":  ", ": ")
				if err := os.WriteFile(golden, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			text, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			want := new(routetablev1.RouteTable)
			if err := prototext.Unmarshal(text, want); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(got, want, protocmp.Transform()); diff != "" {
				t.Errorf("table (-got +want):\n%s", diff)
			}
		})
	}
}

func table(t testing.TB, file string) *routetablev1.RouteTable {
	t.Helper()
	c, err := config.Load("test.yaml", []byte(file))
	if err != nil {
		t.Fatalf("Load: %v\nfile:\n%s", err, file)
	}
	out, err := compile.Compile(c)
	if err != nil {
		t.Fatalf("Compile: %v\nfile:\n%s", err, file)
	}
	return out
}

const written = `
port: 8000
endpoints:
- from: /index
  host: [a.example, b.example]
  methods: [GET, HEAD]
  headers: {x-a: "1", x-b: "2"}
  pool:
  - http://localhost:5000
  - http://localhost:5001
- from: /home
  pool:
  - http://localhost:5000
  - http://localhost:5001
`

// TestSameVersion rewrites a file in ways that mean the same.
func TestSameVersion(t *testing.T) {
	tests := map[string]string{
		"order of endpoints and keys": `
endpoints:
- pool: [http://localhost:5000, http://localhost:5001]
  from: /home
- pool: [http://localhost:5000, http://localhost:5001]
  headers: {x-b: "2", x-a: "1"}
  methods: [HEAD, GET]
  host: [b.example, a.example]
  from: /index
port: 8000`,
		"comments, quotes and flow style": `
{"port": 8000, "endpoints": [ # two
  {"from": "/index", 'host': ["A.example", b.example, a.example], methods: [GET, HEAD, GET], headers: {X-A: '1', X-B: "2"},
   "pool": ["http://localhost:5000", {url: http://localhost:5001}]},
  {"from": "/home", "pool": [{url: "http://localhost:5000", weight: 1}, "http://localhost:5001"]}]}`,
		"anchors": `
port: 8000
endpoints:
- &index
  from: /index
  host: [a.example, b.example]
  methods: [GET, HEAD]
  headers: {x-a: "1", x-b: "2"}
  pool: &pool [http://localhost:5000, http://localhost:5001]
- {from: /home, pool: *pool}`,
		"defaults written out": written + `
defaults: {timeouts: {connect: 1000ms, response: 0.5m, idle: 1m30s}, preserveHost: true, maxRequests: 0, queue: {size: 0, timeout: 1s}, rateLimit: {requests: 0, per: 1s, burst: 0, key: none}, healthCheck: {}}
dns: {interval: 10000ms}
metrics: {onProxyPort: true}
accessLog: {path: "", format: json, sample: 1}
requestId: false
limits: {maxHeadBytes: 65536, maxHeaders: 100, maxURIBytes: 8Ki, headerTimeout: 10s, idleTimeout: 60s, maxConnections: 10000}`,
		"acknowledgement": written + "acknowledgeDrop: 01234567\n",
		"derived names given": strings.NewReplacer("from: /index", "from: /index\n  name: a.example,b.example/index",
			"from: /home", "from: /home\n  name: /home").Replace(written),
	}
	want := table(t, written)
	for name, file := range tests {
		t.Run(name, func(t *testing.T) {
			got := table(t, file)
			if diff := cmp.Diff(got, want, protocmp.Transform()); diff != "" {
				t.Errorf("table (-got +want):\n%s", diff)
			}
			if got, want := routetable.Version(got), routetable.Version(want); got != want {
				t.Errorf("version %s, want %s", got, want)
			}
		})
	}
}

// TestOtherVersion changes a file in ways that matter.
func TestOtherVersion(t *testing.T) {
	tests := map[string][2]string{
		"port":           {"port: 8000", "port: 8001"},
		"access log":     {"port: 8000", "port: 8000\naccessLog: {path: stdout}"},
		"request id":     {"port: 8000", "port: 8000\nrequestId: true"},
		"order of pool":  {"  - http://localhost:5000\n  - http://localhost:5001\n- ", "  - http://localhost:5001\n  - http://localhost:5000\n- "},
		"weight":         {"- http://localhost:5001\n- ", "- {url: http://localhost:5001, weight: 2}\n- "},
		"host":           {"b.example", "c.example"},
		"any host":       {"  host: [a.example, b.example]\n", ""},
		"prefix":         {"from: /home", "from: /home/*"},
		"name":           {"from: /home", "name: home\n  from: /home"},
		"header value":   {`"2"`, `"3"`},
		"timeout":        {"from: /home", "timeouts: {idle: 91s}\n  from: /home"},
		"preserved host": {"from: /home", "preserveHost: false\n  from: /home"},
		"metrics":        {"port: 8000", "port: 8000\nmetrics: {onProxyPort: false}"},
		"limits":         {"port: 8000", "port: 8000\nlimits: {maxHeaders: 99}"},
	}
	seen := map[string]string{routetable.Version(table(t, written)): "the original"}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			if strings.Count(written, change[0]) < 1 {
				t.Fatalf("%q is not in the file", change[0])
			}
			version := routetable.Version(table(t, strings.Replace(written, change[0], change[1], 1)))
			if other, ok := seen[version]; ok {
				t.Errorf("the version is that of %s", other)
			}
			seen[version] = name
		})
	}
}

// TestCompileRefuses checks that a Config that no file makes cannot reach a data
// plane.
func TestCompileRefuses(t *testing.T) {
	c, err := config.Load("test.yaml", []byte(written))
	if err != nil {
		t.Fatal(err)
	}
	c.Endpoints[0].Pool = nil
	if out, err := compile.Compile(c); err == nil || !strings.Contains(err.Error(), "pool") {
		t.Errorf("Compile = %v, %v; want an error about the pool", out, err)
	}
}
