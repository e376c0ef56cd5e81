package routetable_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

func TestValidateAccepts(t *testing.T) {
	tests := map[string]func(*routetablev1.RouteTable){
		"every field":              func(*routetablev1.RouteTable) {},
		"no access log":            func(t *routetablev1.RouteTable) { t.AccessLog = nil },
		"log on standard output":   func(t *routetablev1.RouteTable) { t.AccessLog.Path = "stdout" },
		"one request in a million": func(t *routetablev1.RouteTable) { t.AccessLog.SamplePerMillion = 1 },
		"no endpoints":             func(t *routetablev1.RouteTable) { t.Endpoints = nil },
		"IPv6":                     func(t *routetablev1.RouteTable) { t.Endpoints[0].Hosts = []string{"[2001:db8::1]"} },
		"IPv4":                     func(t *routetablev1.RouteTable) { t.Endpoints[0].Hosts = []string{"127.0.0.1"} },
		"underscore":               func(t *routetablev1.RouteTable) { t.Endpoints[0].Hosts = []string{"_a.b_c"} },
		"all drained":              func(t *routetablev1.RouteTable) { t.Endpoints[0].Pool[0].Weight = 0 },
		"name of 200 bytes":        func(t *routetablev1.RouteTable) { t.Endpoints[0].Name = strings.Repeat("a", 200) },
		"backend twice":            func(t *routetablev1.RouteTable) { t.Endpoints[1].Pool[0].Url = t.Endpoints[1].Pool[1].Url },
		"empty header value":       func(t *routetablev1.RouteTable) { t.Endpoints[1].Headers[0].Value = "" },
		"non-ASCII header value":   func(t *routetablev1.RouteTable) { t.Endpoints[1].Headers[0].Value = "grün" },
		"escaped path":             func(t *routetablev1.RouteTable) { t.Endpoints[1].Path = exact("/%2F//%E2%82%AC") },
		"longest timeouts":         func(t *routetablev1.RouteTable) { t.Endpoints[1].Timeouts.Idle = durationpb.New(24 * time.Hour) },
		"retry":                    func(t *routetablev1.RouteTable) { t.Endpoints[1].Retry = retry(10, 1, 2, 3, 4, 5, 6) },
		"a request timeout":        func(t *routetablev1.RouteTable) { t.Endpoints[1].Timeouts.Request = durationpb.New(time.Minute) },
		"a policy":                 func(t *routetablev1.RouteTable) { t.Endpoints[1].LoadBalancing = balancing(2, nil) },
		"a policy with a key":      func(t *routetablev1.RouteTable) { t.Endpoints[1].LoadBalancing = balancing(3, key(3, "SESSION")) },
		"a slow start alone": func(t *routetablev1.RouteTable) {
			t.Endpoints[1].LoadBalancing = &routetablev1.LoadBalancing{SlowStart: durationpb.New(time.Minute)}
		},
		"backups":    func(t *routetablev1.RouteTable) { t.Endpoints[1].Pool[0].Backup = true },
		"most slots": func(t *routetablev1.RouteTable) { t.Endpoints[0].Pool = weights(100, 1000, 1000) },
		"many slots by equal weights": func(t *routetablev1.RouteTable) {
			t.Endpoints[0].Pool = weights(2000, 1000, 1000)
		},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			table := small()
			change(table)
			if err := routetable.Validate(table); err != nil {
				t.Error(err)
			}
		})
	}
}

func exact(path string) *routetablev1.Endpoint_Exact {
	return &routetablev1.Endpoint_Exact{Exact: path}
}

func retry(attempts uint32, on ...routetablev1.RetryOn) *routetablev1.Retry {
	return &routetablev1.Retry{Attempts: attempts, On: on, BudgetPercent: 20}
}

func prefix(path string) *routetablev1.Endpoint_Prefix {
	return &routetablev1.Endpoint_Prefix{Prefix: path}
}

// weights returns n backends, all but the last of one weight.
func weights(n int, each, last uint32) (pool []*routetablev1.Backend) {
	for i := range n {
		pool = append(pool, &routetablev1.Backend{Url: fmt.Sprintf("http://b%d", i), Weight: each})
	}
	pool[n-1].Weight = last
	return pool
}

func TestValidateRefuses(t *testing.T) {
	type table = routetablev1.RouteTable
	type endpoint = routetablev1.Endpoint
	of := func(change func(*endpoint)) func(*table) {
		return func(t *table) { change(t.Endpoints[1]) }
	}
	tests := []struct {
		name   string
		change func(*table)
		want   string // the path and part of the message of the only problem
	}{
		{"no port", func(t *table) { t.Port = 0 }, "port: 0 is out of range; it must be 1 to 65535"},
		{"port", func(t *table) { t.Port = 65536 }, "port: 65536 is out of range"},
		{"no limits", func(t *table) { t.Limits = nil }, "limits: is not set"},
		{"head", func(t *table) { t.Limits.MaxHeadBytes = 0 }, "limits.max_head_bytes: 0 is out of range"},
		{"big head", func(t *table) { t.Limits.MaxHeadBytes = 1 << 30 }, "limits.max_head_bytes: 1073741824"},
		{"headers", func(t *table) { t.Limits.MaxHeaderCount = 0 }, "limits.max_header_count: 0"},
		{"uri", func(t *table) { t.Limits.MaxUriBytes = 1 }, "limits.max_uri_bytes: 1"},
		{"header timeout", func(t *table) { t.Limits.HeaderTimeout = nil }, "limits.header_timeout: is not set"},
		{"idle timeout", func(t *table) { t.Limits.IdleTimeout = durationpb.New(0) }, "limits.idle_timeout: 0s is out of range"},
		{"connections", func(t *table) { t.Limits.MaxConnections = 0 }, "limits.max_connections: 0"},
		{"no log path", func(t *table) { t.AccessLog.Path = "" }, "access_log.path: is empty; it must be stdout or"},
		{"relative log path", func(t *table) { t.AccessLog.Path = "a.log" }, "access_log.path: \"a.log\" is not an absolute path; write stdout, or"},
		{"log path is a directory", func(t *table) { t.AccessLog.Path = "/a/" }, "access_log.path: \"/a/\" is a directory"},
		{"long log path", func(t *table) { t.AccessLog.Path = "/" + strings.Repeat("a", 4095) }, "access_log.path: \"/aaa"},
		{"log path with control", func(t *table) { t.AccessLog.Path = "/a\n" }, "access_log.path: \"/a\\n\" contains a control"},
		{"log path not UTF-8", func(t *table) { t.AccessLog.Path = "/\xff" }, "access_log.path: \"/\\xff\" is not valid UTF-8"},
		{"no log format", func(t *table) { t.AccessLog.Format = 0 }, "access_log.format: 0 is not known"},
		{"unknown log format", func(t *table) { t.AccessLog.Format = 4 }, "access_log.format: 4 is not known"},
		{"no sample", func(t *table) { t.AccessLog.SamplePerMillion = 0 }, "access_log.sample_per_million: 0 is out of range; it must be 1 to 1000000"},
		{"big sample", func(t *table) { t.AccessLog.SamplePerMillion = 1e6 + 1 }, "access_log.sample_per_million: 1000001"},
		{"nil endpoint", func(t *table) { t.Endpoints[0] = nil }, "endpoints[0]: is not set"},

		{"no name", of(func(e *endpoint) { e.Name = "" }), "endpoints[1].name: is empty"},
		{"long name", of(func(e *endpoint) { e.Name = strings.Repeat("n", 201) }), "endpoints[1].name: \"nnn"},
		{"name with control", of(func(e *endpoint) { e.Name = "b\u0085" }), "endpoints[1].name: \"b\\u0085\" contains a control"},
		{"name not UTF-8", of(func(e *endpoint) { e.Name = "b\xff" }), "endpoints[1].name: \"b\\xff\" is not valid UTF-8"},
		{"reserved name", of(func(e *endpoint) { e.Name = "none" }), "endpoints[1].name: \"none\" is reserved"},
		{"same name", of(func(e *endpoint) { e.Name = "all" }), "endpoints[1].name: \"all\" is the name of another"},
		{"not sorted", of(func(e *endpoint) { e.Name = "a" }), "endpoints[1].name: \"a\" comes after \"all\""},

		{"no path", of(func(e *endpoint) { e.Path = nil }), "endpoints[1].path: is not set"},
		{"empty path", of(func(e *endpoint) { e.Path = exact("") }), "endpoints[1].exact: \"\" is not a valid path"},
		{"relative path", of(func(e *endpoint) { e.Path = exact("a") }), "endpoints[1].exact: \"a\" is not a valid path"},
		{"path with query", of(func(e *endpoint) { e.Path = exact("/a?b") }), "endpoints[1].exact: \"/a?b\" is not a valid path"},
		{"path with space", of(func(e *endpoint) { e.Path = exact("/a b") }), "endpoints[1].exact: \"/a b\" is not a valid path"},
		{"path above root", of(func(e *endpoint) { e.Path = exact("/../a") }), "endpoints[1].exact: \"/../a\" is not a valid path"},
		{"path not normal", of(func(e *endpoint) { e.Path = exact("/%61/../b%2f") }), "endpoints[1].exact: \"/%61/../b%2f\" is not in normal form; write \"/b%2F\""},
		{"star", of(func(e *endpoint) { e.Path = exact("/a*") }), "endpoints[1].exact: \"/a*\" has a *"},
		{"long path", of(func(e *endpoint) { e.Path = exact("/" + strings.Repeat("a", 4096)) }), "endpoints[1].exact: \"/aaa"},
		{"prefix with slash", of(func(e *endpoint) { e.Path = prefix("/a/") }), "endpoints[1].prefix: \"/a//*\" has an empty segment before the *; write \"/a/*\""},
		{"prefix of a slash", of(func(e *endpoint) { e.Path = prefix("/") }), "endpoints[1].prefix: \"//*\" has an empty segment before the *; write \"/*\""},
		{"prefix not normal", of(func(e *endpoint) { e.Path = prefix("/%2e") }), "endpoints[1].prefix: \"/%2e/*\" is not in normal form; write \"//*\""},

		{"upper-case host", of(func(e *endpoint) { e.Hosts = []string{"A.b"} }), "endpoints[1].hosts[0]: \"A.b\" has upper-case letters; write \"a.b\""},
		{"host with port", of(func(e *endpoint) { e.Hosts = []string{"a:80"} }), "endpoints[1].hosts[0]: \"a:80\" has a port"},
		{"inner star", of(func(e *endpoint) { e.Hosts = []string{"a.*.b"} }), "endpoints[1].hosts[0]: \"a.*.b\" has a *"},
		{"same host", of(func(e *endpoint) { e.Hosts = []string{"a", "a"} }), "endpoints[1].hosts[1]: \"a\" is there twice"},
		{"hosts not sorted", of(func(e *endpoint) { e.Hosts = []string{"b", "a"} }), "endpoints[1].hosts[1]: \"a\" comes after \"b\""},

		{"method", of(func(e *endpoint) { e.Methods = []string{"GE T"} }), "endpoints[1].methods[0]: \"GE T\" is not a valid method"},
		{"empty method", of(func(e *endpoint) { e.Methods = []string{""} }), "endpoints[1].methods[0]: is empty"},
		{"methods not sorted", of(func(e *endpoint) { e.Methods = []string{"PUT", "GET"} }), "endpoints[1].methods[1]: \"GET\" comes after"},

		{"nil header", of(func(e *endpoint) { e.Headers = []*routetablev1.HeaderMatch{nil} }), "endpoints[1].headers[0]: is not set"},
		{"header name", of(func(e *endpoint) { e.Headers[0].Name = "a:" }), "endpoints[1].headers[0].name: \"a:\" is not a valid"},
		{"upper-case header", of(func(e *endpoint) { e.Headers[0].Name = "X-beta" }), "endpoints[1].headers[0].name: \"X-beta\" has upper-case letters; write \"x-beta\""},
		{"host header", of(func(e *endpoint) { e.Headers[0].Name = "host" }), "endpoints[1].headers[0].name: \"host\" cannot be"},
		{"framing header", of(func(e *endpoint) { e.Headers[0].Name = "transfer-encoding" }), "endpoints[1].headers[0].name: \"transfer-encoding\" cannot be"},
		{"header value", of(func(e *endpoint) { e.Headers[0].Value = "a\nb" }), "endpoints[1].headers[0].value: \"a\\nb\" contains a control"},
		{"space around value", of(func(e *endpoint) { e.Headers[0].Value = " a" }), "endpoints[1].headers[0].value: \" a\" starts or ends"},
		{"same header", of(func(e *endpoint) { e.Headers[1].Name = "x-beta" }), "endpoints[1].headers[1]: \"x-beta\" is there twice"},
		{"headers not sorted", of(func(e *endpoint) { e.Headers[1].Name = "a" }), "endpoints[1].headers[1]: \"a\" comes after"},

		{"no pool", of(func(e *endpoint) { e.Pool = nil }), "endpoints[1].pool: is empty"},
		{"nil backend", of(func(e *endpoint) { e.Pool[1] = nil }), "endpoints[1].pool[1]: is not set"},
		{"url", of(func(e *endpoint) { e.Pool[1].Url = "http://h:0" }), "endpoints[1].pool[1].url: \"http://h:0\" has the port \"0\""},
		{"weight", of(func(e *endpoint) { e.Pool[1].Weight = 1001 }), "endpoints[1].pool[1].weight: 1001 is too much; it must be 0 to 1000"},
		{"slots", of(func(e *endpoint) { e.Pool = weights(102, 1000, 999) }), "endpoints[1].pool: the weights make a cycle of 101999 requests"},

		{"no load balancing", of(func(e *endpoint) { e.LoadBalancing = balancing(0, nil) }), "endpoints[1].load_balancing: has nothing but defaults"},
		{"unknown policy", of(func(e *endpoint) { e.LoadBalancing = balancing(9, nil) }), "endpoints[1].load_balancing.policy: 9 is not known"},
		{"no key", of(func(e *endpoint) { e.LoadBalancing = balancing(3, nil) }), "endpoints[1].load_balancing.key: is not set"},
		{"key of another policy", of(func(e *endpoint) { e.LoadBalancing = balancing(1, key(1, "")) }), "endpoints[1].load_balancing.key: is set; only"},
		{"kind of key", of(func(e *endpoint) { e.LoadBalancing = balancing(3, key(0, "")) }), "endpoints[1].load_balancing.key.kind: is not set"},
		{"unknown kind of key", of(func(e *endpoint) { e.LoadBalancing = balancing(3, key(9, "")) }), "endpoints[1].load_balancing.key.kind: 9 is not known"},
		{"named path", of(func(e *endpoint) { e.LoadBalancing = balancing(3, key(4, "a")) }), "endpoints[1].load_balancing.key.name: is \"a\"; this kind"},
		{"header of a key", of(func(e *endpoint) { e.LoadBalancing = balancing(3, key(2, "X-A")) }), "endpoints[1].load_balancing.key.name: \"X-A\" has upper-case"},
		{"cookie of a key", of(func(e *endpoint) { e.LoadBalancing = balancing(3, key(3, "a b")) }), "endpoints[1].load_balancing.key.name: \"a b\" is not a valid name of a cookie"},
		{"slow start", of(func(e *endpoint) {
			e.LoadBalancing = balancing(1, nil)
			e.LoadBalancing.SlowStart = durationpb.New(0)
		}), "endpoints[1].load_balancing.slow_start: 0s"},

		{"no timeouts", of(func(e *endpoint) { e.Timeouts = nil }), "endpoints[1].timeouts: is not set"},
		{"no timeout", of(func(e *endpoint) { e.Timeouts.Connect = nil }), "endpoints[1].timeouts.connect: is not set"},
		{"zero timeout", of(func(e *endpoint) { e.Timeouts.Response = durationpb.New(0) }), "endpoints[1].timeouts.response: 0s"},
		{"negative timeout", of(func(e *endpoint) { e.Timeouts.Idle = durationpb.New(-1) }), "endpoints[1].timeouts.idle: has -1 nanoseconds"},
		{"long timeout", of(func(e *endpoint) { e.Timeouts.Idle.Seconds = 1 << 50 }), "endpoints[1].timeouts.idle: "},
		{"retry: one attempt", of(func(e *endpoint) { e.Retry = retry(1, 1); e.Retry.BudgetPercent = 1 }), "endpoints[1].retry.attempts: 1 is out of range; it must be 2 to 10"},
		{"retry: many attempts", of(func(e *endpoint) { e.Retry = retry(11, 1) }), "endpoints[1].retry.attempts: 11"},
		{"retry: on nothing", of(func(e *endpoint) { e.Retry = retry(2) }), "endpoints[1].retry.on: is empty"},
		{"retry: on something new", of(func(e *endpoint) { e.Retry = retry(2, 1, 7) }), "endpoints[1].retry.on[1]: 7 is not known"},
		{"retry: on what is not set", of(func(e *endpoint) { e.Retry = retry(2, 0, 1) }), "endpoints[1].retry.on[0]: 0 is not known"},
		{"retry: not sorted", of(func(e *endpoint) { e.Retry = retry(2, 2, 1) }), "endpoints[1].retry.on[1]: 1 does not come after 2"},
		{"retry: twice", of(func(e *endpoint) { e.Retry = retry(2, 2, 2) }), "endpoints[1].retry.on[1]: 2 does not come after 2"},
		{"retry: no time for an attempt", of(func(e *endpoint) { e.Retry = retry(2, 1); e.Retry.PerTryTimeout = durationpb.New(0) }), "endpoints[1].retry.per_try_timeout: 0s"},
		{"retry: no budget", of(func(e *endpoint) { e.Retry = retry(2, 1); e.Retry.BudgetPercent = 0 }), "endpoints[1].retry.budget_percent: 0 is out of range"},
		{"retry: a large budget", of(func(e *endpoint) { e.Retry = retry(2, 1); e.Retry.BudgetPercent = 101 }), "endpoints[1].retry.budget_percent: 101"},
		{"zero request timeout", of(func(e *endpoint) { e.Timeouts.Request = durationpb.New(0) }), "endpoints[1].timeouts.request: 0s"},
		{"split timeout", of(func(e *endpoint) { e.Timeouts.Idle = &durationpb.Duration{Nanos: 1e9} }), "endpoints[1].timeouts.idle: has 1000000000 nano"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			table := small()
			test.change(table)
			err := routetable.Validate(table)
			problems := routetable.Problems(err)
			if len(problems) != 1 || !strings.HasPrefix(problems[0].Error(), test.want) {
				t.Errorf("problems are %v, want %q", err, test.want)
			}
		})
	}
}

func balancing(policy routetablev1.Policy, key *routetablev1.Key) *routetablev1.LoadBalancing {
	return &routetablev1.LoadBalancing{Policy: policy, Key: key}
}

func key(kind routetablev1.KeyKind, name string) *routetablev1.Key {
	return &routetablev1.Key{Kind: kind, Name: name}
}

func TestValidateReportsAll(t *testing.T) {
	table := small()
	table.Port = 0
	table.Endpoints[0].Pool[0].Url = "https://h"
	table.Endpoints[1].Timeouts = nil
	table.Limits.MaxUriBytes = 0
	var got []string
	for _, p := range routetable.Problems(routetable.Validate(table)) {
		got = append(got, p.Path)
	}
	want := []string{"port", "endpoints[0].pool[0].url", "endpoints[1].timeouts", "limits.max_uri_bytes"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("paths (-want +got):\n%s", diff)
	}
	if err := routetable.Validate(nil); err == nil || err.Error() != "there is no route table" {
		t.Errorf("without a table: %v", err)
	}
}

func TestProblems(t *testing.T) {
	a, b := &routetable.Problem{Path: "a", Message: "x"}, &routetable.Problem{Message: "y"}
	err := fmt.Errorf("table: %w", errors.Join(a, fmt.Errorf("more: %w", b)))
	if got := routetable.Problems(err); len(got) != 1 || got[0] != a {
		t.Errorf("wrapped twice: %v", got)
	}
	got := routetable.Problems(errors.Join(a, errors.Join(b, errors.New("z"))))
	if diff := cmp.Diff([]*routetable.Problem{a, b, {Message: "z"}}, got); diff != "" {
		t.Errorf("joined (-want +got):\n%s", diff)
	}
	if got := routetable.Problems(nil); got != nil {
		t.Errorf("no error: %v", got)
	}
}

// A field that a newer release added, anywhere.
func TestValidateRefusesUnknownFields(t *testing.T) {
	unknown := protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 1)
	table := small()
	seen := map[protoreflect.FullName]bool{}
	eachMessage(table.ProtoReflect(), func(m protoreflect.Message) {
		seen[m.Descriptor().FullName()] = true
		m.SetUnknown(unknown)
		// As it comes from the wire.
		data, err := proto.Marshal(table)
		if err != nil {
			t.Fatal(err)
		}
		var got routetablev1.RouteTable
		if err := proto.Unmarshal(data, &got); err != nil {
			t.Fatal(err)
		}
		problems := routetable.Problems(routetable.Validate(&got))
		if len(problems) != 1 || !strings.Contains(problems[0].Message, "does not know") {
			t.Errorf("unknown field in a %s: %v", m.Descriptor().Name(), problems)
		}
		m.SetUnknown(nil)
	})
	if len(seen) != 8 {
		t.Errorf("visited %v; want every kind of message of a table", seen)
	}
}

func eachMessage(m protoreflect.Message, f func(protoreflect.Message)) {
	f(m)
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case field.IsList() && field.Message() != nil:
			for i := range v.List().Len() {
				eachMessage(v.List().Get(i).Message(), f)
			}
		case field.Message() != nil:
			eachMessage(v.Message(), f)
		}
		return true
	})
}

func BenchmarkValidate(b *testing.B) {
	table := large(100_000)
	b.ReportAllocs()
	for b.Loop() {
		if err := routetable.Validate(table); err != nil {
			b.Fatal(err)
		}
	}
}
