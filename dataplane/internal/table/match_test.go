package table_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"reverseproxy/dataplane/internal/table"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// compare matches a request with the table and with the plain matcher, and
// compares what the two say, and where a backend is sent to.
func compare(t *testing.T, rt *routetablev1.RouteTable, tab *table.Table, q *table.Query, r *routetable.Request, f fields) string {
	t.Helper()
	want := "404"
	wantEndpoint, allow, err := routetable.Match(rt, r)
	switch {
	case err != nil:
		want = "400"
	case wantEndpoint != nil:
		want = wantEndpoint.GetName()
	case allow != nil:
		want = "405 " + strings.Join(allow, ", ")
	}
	q.Method, q.Host, q.Path = []byte(r.Method), []byte(r.Host), []byte(r.Path)
	q.Query, q.HasQuery = []byte(r.Query), r.HasQuery
	if f != nil {
		q.Header = f
	}
	got := "404"
	result := tab.Match(q)
	switch {
	case result.BadPath:
		got = "400"
	case result.Endpoint != nil:
		got = result.Endpoint.Name
	case result.Allow != "":
		got = "405 " + result.Allow
	}
	if got != want {
		t.Fatalf("%s %s%s %v: got %q, the plain matcher says %q\n%v", r.Method, r.Host, r.Path, f, got, want, rt)
	}
	if string(q.Path) != r.Path || string(q.Host) != r.Host {
		t.Fatalf("Match has changed the request to %q%q", q.Host, q.Path)
	}
	if result.Endpoint == nil {
		return got[:3]
	}
	for i, b := range result.Endpoint.Pool.Backends {
		wantTarget, err := routetable.Target(wantEndpoint, wantEndpoint.GetPool()[i], r)
		if ok := result.Endpoint.Rewrite(q); ok != (err == nil) || err != nil && err != routetable.ErrPath {
			t.Fatalf("%s with %v: rewritten %t, the reference says %v", r.Path, wantEndpoint.GetRewrite(), ok, err)
		}
		if err != nil {
			return "no path"
		}
		if target := string(result.Endpoint.AppendTarget([]byte("GET "), b, q)); target != "GET "+wantTarget {
			t.Fatalf("%s%s: target %q, want %q", r.Path, r.Query, target, wantTarget)
		}
		if _, err := routetable.NormalizePath(strings.SplitN(wantTarget, "?", 2)[0]); err != nil {
			t.Fatalf("%s with %s makes the target %q", r.Path, b.URL, wantTarget)
		}
	}
	return "200"
}

// generator makes random tables and requests out of few words, so that they meet.
type generator struct{ *rand.Rand }

func (g generator) pick(list ...string) string { return list[g.IntN(len(list))] }

func (g generator) segment() string { return g.pick("a", "b", "c", "ab", "a%2Fb", "", "~x", "%20") }

func (g generator) from() string {
	var s strings.Builder
	for range g.IntN(4) {
		s.WriteString("/" + g.segment())
	}
	from := strings.TrimRight(s.String(), "/") + g.pick("/*", "", "", "/")
	if from == "" {
		from = "/"
	}
	return from
}

func (g generator) pattern() string {
	return g.pick("a.example.com", "b.a.example.com", "*.example.com", "*.a.example.com", "*.com", "com", "[::1]", "127.0.0.1")
}

func (g generator) some(n int, make func() string) []string {
	var list []string
	for range g.IntN(n + 1) {
		list = append(list, make())
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func (g generator) table(n int) *routetablev1.RouteTable {
	var list []*routetablev1.Endpoint
	for i := range n {
		var conditions []string
		if g.IntN(2) == 0 {
			for _, h := range g.some(3, g.pattern) {
				conditions = append(conditions, "host:"+h)
			}
		}
		for _, m := range g.some(2*g.IntN(2), func() string { return g.pick("GET", "POST", "PUT", "X") }) {
			conditions = append(conditions, "method:"+m)
		}
		for _, h := range g.some(2*g.IntN(2), func() string { return g.pick("x-a", "x-b", "x-c") }) {
			conditions = append(conditions, h+"="+g.pick("1", "2"))
		}
		e := endpoint(fmt.Sprintf("e%03d", i), g.from(), conditions...)
		withPool(e, "http://h", "http://h/", "http://h/p?q", "http://h/p/", "http://h?q=1")
		e.Rewrite = g.rewrite(e.GetPath())
		list = append(list, e)
	}
	rt := wireTable(list...)
	// Endpoints that tie leave, one after another.
	for {
		ties, err := routetable.Ties(rt.Endpoints)
		if err != nil || len(ties) == 0 {
			return rt
		}
		rt.Endpoints = slices.Delete(rt.Endpoints, ties[0].Second, ties[0].Second+1)
	}
}

// rewrite makes one for a third of the endpoints.
func (g generator) rewrite(path any) *routetablev1.Rewrite {
	_, prefix := path.(*routetablev1.Endpoint_Prefix)
	switch n := g.IntN(9); {
	case n == 0:
		return &routetablev1.Rewrite{To: &routetablev1.Rewrite_Path{Path: g.pick("/", "/x", "/x/y/", "/%20")}}
	case n == 1 && prefix:
		return &routetablev1.Rewrite{To: &routetablev1.Rewrite_Prefix{Prefix: g.pick("/", "/x", "/x/y/", "//")}}
	case n <= 2:
		return &routetablev1.Rewrite{To: &routetablev1.Rewrite_Regex{Regex: &routetablev1.Regex{
			Match:   g.pick("a", "^/(.*)$", "/([^/]*)/([^/]*)", "%2F", "[a-c]+", "x?"),
			Replace: g.pick("/", "/$0", "/..", "/%2e%2e/a", "/ä", "/"),
		}}}
	}
	return nil
}

func (g generator) request() (*routetable.Request, fields) {
	r := &routetable.Request{Method: g.pick("GET", "POST", "PUT", "X", "get", "DELETE")}
	r.Host = g.pick("a.example.com", "A.Example.COM", "b.a.example.com:80", "c.b.a.example.com.", "example.com", "x.com", "com", ".com", "[::1]:8000", "127.0.0.1", "", "other", ".example.com", "..a.example.com")
	switch g.IntN(20) {
	case 0:
	case 1:
		r.Path = g.pick("*", "a", "/%", "/..", "/a b", "/é", "/a/../..", "/%zz")
	default:
		r.Path = ""
		for range 1 + g.IntN(6) {
			r.Path += "/" + g.pick(g.segment(), g.segment(), g.segment(), "%61", "a%2fb", ".", "..", "%2e", "%2E.", "...", "%7ex")
		}
	}
	if r.HasQuery = g.IntN(3) == 0; r.HasQuery {
		r.Query = g.pick("", "a=b", "%zz?/..", "a&b")
	}
	f := fields{}
	for _, name := range []string{"x-a", "x-b", "x-c"} {
		f[name] = g.some(2, func() string { return g.pick("1", "2", "3") })
	}
	r.Header = func(name string) []string { return f[name] }
	return r, f
}

func TestMatchAgreesWithThePlainMatcher(t *testing.T) {
	tables, requests := 1500, 200
	if testing.Short() {
		tables = 100
	}
	g := generator{rand.New(rand.NewPCG(3, 4))}
	s := newState()
	seen := map[string]int{}
	var q table.Query // one for all, as on the request path
	for i := range tables {
		rt := g.table(1 + i%60)
		tab := compile(t, rt, s)
		for range requests {
			r, f := g.request()
			seen[compare(t, rt, tab, &q, r, f)]++
		}
	}
	t.Logf("%v", seen)
	for _, outcome := range []string{"200", "400", "404", "405", "no path"} {
		if seen[outcome] < 1000 {
			t.Errorf("only %d requests end in %s", seen[outcome], outcome)
		}
	}
}

func TestDeepPrefixes(t *testing.T) {
	deep := func(n int) string { return strings.Repeat("/s", n) }
	rt := wireTable(
		endpoint("62", deep(62)+"/*"), endpoint("63", deep(63)+"/*"), endpoint("64", deep(64)+"/*"), endpoint("100", deep(100)+"/*"),
		endpoint("2000", deep(2000)+"/*"), endpoint("2", deep(2)+"/*"))
	tab := compile(t, rt, newState())
	var q table.Query
	for n := range 2100 {
		compare(t, rt, tab, &q, &routetable.Request{Method: "GET", Path: "/" + strings.Repeat("s/", n)}, nil)
	}
}

func TestAllowIsAFieldValue(t *testing.T) {
	tab := compile(t, wireTable(
		endpoint("a", "/a", "method:GET", "method:PUT"), endpoint("b", "/a", "method:DELETE", "x-a=1"), endpoint("c", "/*", "method:GET", "method:X"),
	), newState())
	q := table.Query{Method: []byte("POST"), Path: []byte("/a"), Header: fields{"x-a": {"1"}}}
	if got, want := tab.Match(&q).Allow, "DELETE, GET, PUT, X"; got != want {
		t.Errorf("Allow is %q, want %q", got, want)
	}
}

// FuzzWireTable reads tables as they come over the network: whatever the bytes
// are, nothing may panic, and what is valid is matched as it is defined.
func FuzzWireTable(f *testing.F) {
	g := generator{rand.New(rand.NewPCG(5, 6))}
	for i := range 20 {
		data, err := proto.Marshal(g.table(i))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, uint64(i))
	}
	f.Add([]byte{}, uint64(0))
	f.Add([]byte("\x1a\x02\x12\x00"), uint64(0))
	f.Fuzz(func(t *testing.T, data []byte, seed uint64) {
		var rt routetablev1.RouteTable
		malformed := proto.Unmarshal(data, &rt)
		s := newState()
		tab, err := table.New(data, routetable.Version(&rt), 0, s)
		if malformed != nil {
			if err == nil {
				t.Fatal("New takes what Unmarshal does not")
			}
			return
		}
		if diff := cmp.Diff(routetable.Problems(routetable.Validate(&rt)), routetable.Problems(err)); diff != "" {
			t.Fatalf("problems (-Validate +New):\n%s", diff)
		}
		if err != nil {
			return
		}
		s.Retain(tab)
		g := generator{rand.New(rand.NewPCG(seed, 0))}
		var q table.Query
		for range 20 {
			r, f := g.request()
			if n := len(rt.Endpoints); n > 0 && g.IntN(2) == 0 {
				// One that has a chance.
				e := rt.Endpoints[g.IntN(n)]
				r.Path = e.GetExact() + e.GetPrefix() + g.pick("", "", "/x", "/")
				if len(e.Hosts) > 0 {
					r.Host = strings.Replace(e.Hosts[0], "*", "any", 1)
				}
			}
			compare(t, &rt, tab, &q, r, f)
		}
	})
}
