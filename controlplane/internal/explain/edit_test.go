package explain_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"reverseproxy/controlplane/internal/explain"
	fleetv1 "reverseproxy/proto/fleet/v1"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

func TestEditsAndAnswersAreExplained(t *testing.T) {
	header := func(name, value string) []*routetablev1.Header {
		return []*routetablev1.Header{{Name: name, Value: value}}
	}
	rt := &routetablev1.RouteTable{Port: 1, Endpoints: []*routetablev1.Endpoint{
		endpoint("edits", "/edits", func(e *routetablev1.Endpoint) {
			e.Rewrite = &routetablev1.Rewrite{To: &routetablev1.Rewrite_Path{Path: "/x"}}
			e.RequestHeaders = &routetablev1.HeaderEdits{Set: header("X-Client", "${client}"), Add: header("X-A", "1"), Remove: []string{"a", "b"}}
			e.ResponseHeaders = &routetablev1.HeaderEdits{Remove: []string{"server"}}
		}),
		endpoint("prefix", "", func(e *routetablev1.Endpoint) {
			e.Path = &routetablev1.Endpoint_Prefix{Prefix: "/prefix"}
			e.Rewrite = &routetablev1.Rewrite{To: &routetablev1.Rewrite_Prefix{Prefix: "/x"}}
		}),
		endpoint("redirect", "/redirect", func(e *routetablev1.Endpoint) {
			e.Pool, e.Answer = nil, &routetablev1.Endpoint_Redirect{Redirect: &routetablev1.Redirect{To: "https://${host}${path}?${query}", Status: 308}}
		}),
		endpoint("regex", "", func(e *routetablev1.Endpoint) {
			e.Path = &routetablev1.Endpoint_Prefix{Prefix: "/regex"}
			e.Rewrite = &routetablev1.Rewrite{To: &routetablev1.Rewrite_Regex{Regex: &routetablev1.Regex{Match: "^/regex/(.)", Replace: "/$1"}}}
		}),
		endpoint("respond", "/respond", func(e *routetablev1.Endpoint) {
			e.Pool, e.Answer = nil, &routetablev1.Endpoint_Respond{Respond: &routetablev1.Respond{Status: 200, Body: []byte("abc")}}
		}),
	}}
	sent := func(line string) []*fleetv1.BackendRequest {
		return []*fleetv1.BackendRequest{{Url: "http://back:81/b?x", Weight: 1, RequestLine: line, Host: "h:1"}}
	}
	for url, want := range map[string]*fleetv1.ExplainResponse{
		"http://h:1/edits?q": {
			Endpoint: "edits", Backends: sent("GET /b/x?x&q HTTP/1.1"),
			Settings: []string{
				"rewrite: the path becomes /x", "request headers: remove a, b; set X-Client: ${client}; add X-A: 1", "response headers: remove server",
			},
		},
		"http://h:1/prefix/a": {
			Endpoint: "prefix", Backends: sent("GET /b/x/a?x HTTP/1.1"), Settings: []string{"rewrite: the prefix /prefix becomes /x"},
		},
		"http://h:1/regex/ab": {
			Endpoint: "regex", Backends: sent("GET /b/ab?x HTTP/1.1"), Settings: []string{"rewrite: what matches ^/regex/(.) becomes /$1"},
		},
		"http://h:1/redirect?q": {
			Endpoint: "redirect", Status: 308, Settings: []string{"redirect: to https://h/redirect?q"},
		},
		"/redirect": {
			Endpoint: "redirect", Status: 400, Settings: []string{"redirect: there is no host to send the client to"},
		},
		"http://h:1/respond": {
			Endpoint: "respond", Status: 200, Settings: []string{"respond: a fixed answer of 3 bytes"},
		},
	} {
		got, err := explain.Explain(rt, &fleetv1.ExplainRequest{Url: url})
		if err != nil {
			t.Fatal(err)
		}
		got.Mismatches = nil
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", url, diff)
		}
	}
}

func TestARewriteThatMakesNoPathIsExplained(t *testing.T) {
	rt := &routetablev1.RouteTable{Port: 1, Endpoints: []*routetablev1.Endpoint{
		endpoint("all", "", func(e *routetablev1.Endpoint) {
			e.Path = &routetablev1.Endpoint_Prefix{}
			e.Rewrite = &routetablev1.Rewrite{To: &routetablev1.Rewrite_Regex{Regex: &routetablev1.Regex{Match: "x", Replace: "."}}}
		}),
	}}
	got, err := explain.Explain(rt, &fleetv1.ExplainRequest{Url: "/xx/a"})
	if err != nil {
		t.Fatal(err)
	}
	want := &fleetv1.ExplainResponse{
		Endpoint: "all", Status: 400,
		Settings: []string{"rewrite: what matches x becomes .", "rewrite: it makes no valid path of this one"},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
