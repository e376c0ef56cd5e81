package diff_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"gopkg.in/yaml.v3"

	"reverseproxy/controlplane/internal/compile"
	"reverseproxy/controlplane/internal/config"
	"reverseproxy/controlplane/internal/diff"
	fleetv1 "reverseproxy/proto/fleet/v1"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// table compiles a configuration.
func table(t testing.TB, text string) *routetablev1.RouteTable {
	t.Helper()
	c, err := config.Load("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	rt, err := compile.Compile(c)
	if err != nil {
		t.Fatal(err)
	}
	return rt
}

// words writes changes as the command line does.
func words(changes []*fleetv1.Change) string {
	var lines []string
	for _, c := range changes {
		sign := map[fleetv1.ChangeKind]string{1: "+", 2: "-", 3: "~"}[c.GetKind()]
		line := sign + " " + c.GetSubject()
		if c.GetDetail() != "" {
			line += ": " + c.GetDetail()
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

func TestInWords(t *testing.T) {
	for _, test := range []struct{ name, before, after, want string }{
		{"nothing", "{from: /a, pool: ['http://h:1']}", "{from: /a, pool: ['http://h:1']}", ""},
		{
			"endpoints come and go", "{from: /a, pool: ['http://h:1']}\n- {from: /b, pool: ['http://h:1']}",
			"{from: /b, pool: ['http://h:1']}\n- {from: /c, pool: ['http://h:1']}",
			"- endpoint /a\n+ endpoint /c",
		},
		{
			"backends come, go and change", "{name: home, from: /a, pool: ['http://h:1', 'http://h:2', 'http://h:3']}",
			"{name: home, from: /a, pool: [{url: 'http://h:1', weight: 3, backup: true}, 'http://h:3', 'http://h:4']}",
			"~ backend http://h:1 of endpoint home: weight 1 → 3\n~ backend http://h:1 of endpoint home: backup false → true\n" +
				"+ backend http://h:4 of endpoint home\n- backend http://h:2 of endpoint home",
		},
		{
			"another order", "{from: /a, pool: ['http://h:1', 'http://h:2']}", "{from: /a, pool: ['http://h:2', 'http://h:1']}",
			"~ endpoint /a: pool in another order",
		},
		{
			"a backend that is there twice", "{from: /a, pool: ['http://h:1']}", "{from: /a, pool: ['http://h:1', 'http://h:1']}",
			"+ backend http://h:1 of endpoint /a",
		},
		{
			"conditions", "{name: a, from: /a, pool: ['http://h:1']}",
			"{name: a, from: /a/*, host: [x.test, '*.y.test'], methods: [GET], headers: {x-b: 'c d'}, pool: ['http://h:1']}",
			"~ endpoint a: from /a → /a/*\n~ endpoint a: host any → *.y.test, x.test\n~ endpoint a: methods any → GET\n~ endpoint a: headers none → x-b: \"c d\"",
		},
		{
			"settings", "{from: /a, preserveHost: true, timeouts: {connect: 1s, request: 5s}, pool: ['http://h:1']}",
			"{from: /a, preserveHost: false, timeouts: {connect: 2s}, panic: refuse, retry: {attempts: 3, on: [connectFailure, 502], budget: 5%}, " +
				"loadBalancing: {policy: ConsistentHash, on: 'header:X-User'}, pool: ['http://h:1']}",
			"~ endpoint /a: timeouts.connect 1s → 2s\n~ endpoint /a: timeouts.request 5s → 0s\n~ endpoint /a: preserveHost true → false\n" +
				"~ endpoint /a: panic useAll → refuse\n~ endpoint /a: retry none → {attempts 3, on [connectFailure, 502], budget 5%}\n" +
				"~ endpoint /a: loadBalancing.policy RoundRobin → ConsistentHash\n~ endpoint /a: loadBalancing.on none → header:x-user",
		},
		{
			"checks", "{from: /a, healthCheck: {active: {interval: 5s}}, pool: ['http://h:1']}",
			"{from: /a, healthCheck: {active: {interval: 7s, expectStatus: [200, 3xx]}, passive: {on5xx: true}}, pool: ['http://h:1']}",
			"~ endpoint /a: healthCheck.active.expectStatus 200-299 → 200, 300-399\n~ endpoint /a: healthCheck.active.interval 5s → 7s\n" +
				"~ endpoint /a: healthCheck.passive none → {consecutiveFailures 5, ejectFor 10s, maxEjectedPercent 50, on5xx true}",
		},
		{
			"answers and edits", "{from: /a, redirect: {to: /b}}",
			"{from: /a, respond: {status: 404, body: 'not here'}, responseHeaders: {set: {X-A: b}, remove: [X-C]}}",
			"~ endpoint /a: responseHeaders.set none → X-A: b\n~ endpoint /a: responseHeaders.remove none → x-c\n" +
				"~ endpoint /a: redirect {to /b, status 302} → none\n~ endpoint /a: respond none → {status 404, body \"not here\"}",
		},
		{
			"the whole table", "{from: /a, pool: ['http://h:1']}",
			"{from: /a, pool: ['http://h:1']}\nmetrics: {onProxyPort: false}\nlimits: {maxHeaders: 5}\naccessLog: {path: stdout, sample: 0.5}\n" +
				"requestId: true\ndns: {interval: 3s}\ntrustedProxies: [10.0.0.0/8]",
			"~ metrics.onProxyPort: true → false\n~ limits.maxHeaders: 100 → 5\n~ accessLog: none → {path stdout, format json, sample 0.5}\n" +
				"~ requestId: false → true\n~ trustedProxies: none → 10.0.0.0/8\n~ dns.interval: 10s → 3s",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			before, after := table(t, "port: 8000\nendpoints:\n- "+test.before+"\n"), table(t, "port: 8000\nendpoints:\n- "+test.after+"\n")
			if d := cmp.Diff(words(diff.Tables(before, after)), test.want); d != "" {
				t.Errorf("-got +want:\n%s", d)
			}
			if n := len(diff.Tables(after, after)); n != 0 {
				t.Errorf("a table differs from itself in %d ways", n)
			}
		})
	}
}

func TestFromAndToNothing(t *testing.T) {
	some := table(t, "port: 8000\nendpoints: [{from: /a, pool: ['http://h:1']}]")
	if got := words(diff.Tables(nil, some)); !strings.Contains(got, "+ endpoint /a") || !strings.Contains(got, "~ port: 0 → 8000") {
		t.Errorf("got %s", got)
	}
	if got := words(diff.Tables(some, &routetablev1.RouteTable{})); !strings.Contains(got, "- endpoint /a") {
		t.Errorf("got %s", got)
	}
}

func TestLongValuesAndLists(t *testing.T) {
	list := func(from, to int) string {
		var s []string
		for i := from; i < to; i++ {
			s = append(s, fmt.Sprintf("10.0.%d.0/24", i))
		}
		return "trustedProxies: [" + strings.Join(s, ", ") + "]\n"
	}
	body := func(last string) string {
		return "endpoints: [{from: /a, respond: {body: '" + strings.Repeat("é", 2000) + last + "'}}]\n"
	}
	got := words(diff.Tables(table(t, "port: 8000\n"+list(0, 20)+body("x")), table(t, "port: 8000\n"+list(2, 30)+body("y"))))
	for _, want := range []string{
		"~ trustedProxies: adds 10.0.20.0/24, 10.0.21.0/24, 10.0.22.0/24, 10.0.23.0/24, 10.0.24.0/24 and 5 more, removes 10.0.0.0/24, 10.0.1.0/24\n",
		"(4001 bytes, SHA-256 ",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("got\n%s\nwithout %s", got, want)
		}
	}
	if len(got) > 1000 {
		t.Errorf("it takes %d bytes", len(got))
	}
	if sides := regexp.MustCompile(`body (.*) → (.*)`).FindStringSubmatch(got); sides == nil || sides[1] == sides[2] {
		t.Errorf("the bodies look the same: %q", sides)
	}
}

// fullKeys are all keys of configs/full.yaml, by path.
func fullKeys(t *testing.T) map[string]bool {
	t.Helper()
	data, err := os.ReadFile("../../../configs/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file any
	if err := yaml.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	keys := map[string]bool{}
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for key, value := range v {
				keys[path+key] = true
				walk(path+key+".", value)
			}
		case []any:
			for _, value := range v {
				walk(path, value)
			}
		}
	}
	walk("", file)
	return keys
}

// nothing are fields that mean nothing as long as their message is empty.
var nothing = map[protoreflect.FullName]bool{
	"routetable.v1.Endpoint.load_balancing": true, "routetable.v1.Endpoint.request_headers": true, "routetable.v1.Endpoint.response_headers": true,
}

// TestNoFieldIsForgotten changes each field of the contract alone, and wants it told, by
// a key that the file has.
func TestNoFieldIsForgotten(t *testing.T) {
	keys, told := fullKeys(t), 0
	base := &routetablev1.RouteTable{Endpoints: []*routetablev1.Endpoint{{Name: "e", Pool: []*routetablev1.Backend{{Url: "http://h"}}}}}
	var visit func(t *testing.T, before *routetablev1.RouteTable, at []protoreflect.FieldDescriptor, d protoreflect.MessageDescriptor)
	visit = func(t *testing.T, before *routetablev1.RouteTable, at []protoreflect.FieldDescriptor, d protoreflect.MessageDescriptor) {
		for i := range d.Fields().Len() {
			f := d.Fields().Get(i)
			path := append(append([]protoreflect.FieldDescriptor{}, at...), f)
			after := proto.CloneOf(before)
			set(reach(after, at), f)
			if !proto.Equal(before, after) {
				got := diff.Tables(before, after)
				if (len(got) == 0) != nothing[f.FullName()] {
					t.Errorf("%s is forgotten", f.FullName())
				}
				told++
				for _, c := range got {
					checkKey(t, keys, f, c)
				}
			}
			if f.Message() != nil && f.Message().FullName() != "google.protobuf.Duration" {
				visit(t, after, path, f.Message())
			}
		}
	}
	visit(t, base, nil, base.ProtoReflect().Descriptor())
	if told < 80 {
		t.Errorf("only %d fields were tried", told)
	}
}

// reach returns the message that a path of fields leads to.
func reach(t *routetablev1.RouteTable, path []protoreflect.FieldDescriptor) protoreflect.Message {
	m := t.ProtoReflect()
	for _, f := range path {
		if f.IsList() {
			m = m.Mutable(f).List().Get(0).Message()
		} else {
			m = m.Mutable(f).Message()
		}
	}
	return m
}

// set gives a field a value that is not what it is without, unless it has one that is
// needed to find it.
func set(m protoreflect.Message, f protoreflect.FieldDescriptor) {
	if m.Has(f) && f.IsList() {
		return
	}
	v := m.NewField(f)
	switch {
	case f.IsList() && f.Message() != nil:
		v.List().AppendMutable()
	case f.IsList():
		v.List().Append(scalar(f))
	case f.Message() == nil:
		v = scalar(f)
	case f.Message().FullName() == "google.protobuf.Duration":
		v = protoreflect.ValueOfMessage(durationpb.New(7 * time.Second).ProtoReflect())
	}
	m.Set(f, v)
}

func scalar(f protoreflect.FieldDescriptor) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString("other")
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte("other"))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(2)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(7)
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(7)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(7)
	}
	return protoreflect.ValueOfInt64(7)
}

// checkKey fails unless the change calls the field by a key of the file. An endpoint
// with another name, and a backend with another URL, is another one.
func checkKey(t *testing.T, keys map[string]bool, f protoreflect.FieldDescriptor, c *fleetv1.Change) {
	t.Helper()
	key := c.GetSubject()
	switch name, _, _ := strings.Cut(c.GetDetail(), " "); {
	case c.GetKind() != fleetv1.ChangeKind_CHANGE_KIND_CHANGED:
		if f.Name() != "name" && f.Name() != "url" {
			t.Errorf("%s is told as %v", f.FullName(), c)
		}
		return
	case strings.HasPrefix(key, "backend "):
		key = "endpoints.pool." + name
	case strings.HasPrefix(key, "endpoint "):
		key = "endpoints." + name
	}
	if !keys[key] {
		t.Errorf("%s is told as %q, which is no key of the file: %v", f.FullName(), key, c)
	}
	if before, after, arrow := strings.Cut(c.GetDetail(), " → "); !arrow || strings.HasSuffix(before, " "+after) || before == after {
		t.Errorf("%s is told as %v, which says nothing", f.FullName(), c)
	}
}

// TestAgainstADumbOne: there is a change exactly when the tables are not equal, in
// random pairs of tables.
func TestAgainstADumbOne(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	random := func() *routetablev1.RouteTable {
		rt := &routetablev1.RouteTable{Port: 8000}
		for i := range 4 {
			if rng.IntN(3) == 0 {
				continue
			}
			e := &routetablev1.Endpoint{Name: fmt.Sprint(i), Path: &routetablev1.Endpoint_Exact{Exact: fmt.Sprintf("/%d", rng.IntN(2))}}
			for range rng.IntN(3) {
				e.Pool = append(e.Pool, &routetablev1.Backend{Url: fmt.Sprintf("http://h:%d", rng.IntN(2)), Weight: uint32(rng.IntN(2))})
			}
			rt.Endpoints = append(rt.Endpoints, e)
		}
		return rt
	}
	for range 5_000 {
		a, b := random(), random()
		if got := diff.Tables(a, b); (len(got) == 0) != proto.Equal(a, b) {
			t.Fatalf("from %v to %v: %s", a, b, words(got))
		}
	}
}

func BenchmarkTables(b *testing.B) {
	const n = 100_000
	make := func(weight uint32) *routetablev1.RouteTable {
		rt := &routetablev1.RouteTable{Port: 8000}
		for i := range n {
			rt.Endpoints = append(rt.Endpoints, &routetablev1.Endpoint{
				Name: fmt.Sprintf("e%06d", i), Path: &routetablev1.Endpoint_Exact{Exact: fmt.Sprintf("/e/%d", i)},
				Pool: []*routetablev1.Backend{{Url: "http://10.0.0.1:1", Weight: weight}, {Url: "http://10.0.0.2:1", Weight: 1}, {Url: "http://10.0.0.3:1", Weight: 1}},
			})
		}
		return rt
	}
	before, one, all := make(1), make(1), make(2)
	one.Endpoints[n/2].Pool[0].Weight = 3
	for name, after := range map[string]*routetablev1.RouteTable{"changed=1": one, "changed=all": all} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if len(diff.Tables(before, after)) == 0 {
					b.Fatal("nothing has changed")
				}
			}
		})
	}
}
