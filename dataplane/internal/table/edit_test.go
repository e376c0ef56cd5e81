package table_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"reverseproxy/dataplane/internal/table"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

func field(name, value string) *routetablev1.Header {
	return &routetablev1.Header{Name: name, Value: value}
}

func TestEdits(t *testing.T) {
	e := endpoint("e", "/e")
	e.RequestHeaders = &routetablev1.HeaderEdits{
		Set: []*routetablev1.Header{field("A", "${client}!"), field("B", "$$")}, Add: []*routetablev1.Header{field("c", "")}, Remove: []string{"d"},
	}
	got := compile(t, wireTable(e, endpoint("f", "/f")), newState())
	if f := got.Endpoint("f"); f.RequestHeaders != nil || f.ResponseHeaders != nil || f.Answer != nil {
		t.Errorf("an endpoint without edits has %v, %v, %v", f.RequestHeaders, f.ResponseHeaders, f.Answer)
	}
	edits := got.Endpoint("e").RequestHeaders
	if diff := cmp.Diff([]string{"d", "a", "b"}, edits.Drop); diff != "" {
		t.Errorf("dropped (-want +got):\n%s", diff)
	}
	lines := string(edits.Lines.Append(nil, &routetable.Values{Client: []byte("192.0.2.1")}))
	if want := "A: 192.0.2.1!\r\nB: $\r\nc: \r\n"; lines != want {
		t.Errorf("lines are %q, want %q", lines, want)
	}
}

func TestAnswers(t *testing.T) {
	redirect, plain, typed, empty := endpoint("a", "/a"), endpoint("b", "/b"), endpoint("c", "/c"), endpoint("d", "/d")
	for _, e := range []*routetablev1.Endpoint{redirect, plain, typed, empty} {
		e.Pool = nil
	}
	redirect.Answer = &routetablev1.Endpoint_Redirect{Redirect: &routetablev1.Redirect{To: "https://${host}/", Status: 308}}
	plain.Answer = &routetablev1.Endpoint_Respond{Respond: &routetablev1.Respond{Status: 404, Body: []byte("gone")}}
	typed.Answer = &routetablev1.Endpoint_Respond{Respond: &routetablev1.Respond{
		Status: 200, Body: []byte("{}"), Headers: []*routetablev1.Header{field("a", "1"), field("CONTENT-TYPE", "application/json"), field("X", "1")},
	}}
	typed.ResponseHeaders = &routetablev1.HeaderEdits{Set: []*routetablev1.Header{field("x", "2")}, Remove: []string{"a"}}
	empty.Answer = &routetablev1.Endpoint_Respond{Respond: &routetablev1.Respond{Status: 204}}
	tab := compile(t, wireTable(redirect, plain, typed, empty), newState())
	for name, want := range map[string]struct {
		status      int
		lines, body string
	}{
		"a": {308, "", ""}, "b": {404, "Content-Type: text/plain; charset=utf-8\r\n", "gone"},
		"c": {200, "CONTENT-TYPE: application/json\r\n", "{}"}, "d": {204, "", ""},
	} {
		a := tab.Endpoint(name).Answer
		if lines := string(a.Lines.Append(nil, &routetable.Values{})); a.Status != want.status || lines != want.lines || string(a.Body) != want.body {
			t.Errorf("%s: %d %q %q", name, a.Status, lines, a.Body)
		}
		if (a.Location != nil) != (name == "a") {
			t.Errorf("%s: location %v", name, a.Location)
		}
	}
	described := map[string]string{}
	for name, d := range tab.Describe() {
		described[name] = d.Answer
	}
	if diff := cmp.Diff(map[string]string{"a": "308 https://${host}/", "b": "404", "c": "200", "d": "204"}, described); diff != "" {
		t.Errorf("described (-want +got):\n%s", diff)
	}
}

// An endpoint whose edits change is another one, and its pool goes on.
func TestEditsFollowTheTable(t *testing.T) {
	s := newState()
	make := func(rewrite string) *table.Table {
		e := withPool(endpoint("e", "/e/*"), "http://a", "http://b")
		e.Rewrite = &routetablev1.Rewrite{To: &routetablev1.Rewrite_Prefix{Prefix: rewrite}}
		return compile(t, wireTable(e), s)
	}
	for i, want := range []string{"/x/1", "/y/1", "/x/1"} {
		tab := make(want[:2])
		q := table.Query{Method: []byte("GET"), Path: []byte("/e/1")}
		e := tab.Match(&q).Endpoint
		m := e.Pool.Pick(&table.Choice{})
		if !e.Rewrite(&q) || string(e.AppendTarget(nil, m.Backend, &q)) != want || m.Host != []string{"a", "b"}[i%2] {
			t.Errorf("table %d: %s%s", i, m.Host, e.AppendTarget(nil, m.Backend, &q))
		}
	}
}
