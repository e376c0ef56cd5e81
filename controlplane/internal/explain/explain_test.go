package explain_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"reverseproxy/controlplane/internal/explain"
	fleetv1 "reverseproxy/proto/fleet/v1"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

func TestParseURL(t *testing.T) {
	for _, test := range []struct {
		raw, host, path, query string
		hasQuery               bool
		err                    string
	}{
		{raw: "http://h/a?b=c", host: "h", path: "/a", query: "b=c", hasQuery: true},
		{raw: "http://h", host: "h", path: "/"},
		{raw: "http://h?q", host: "h", path: "/", query: "q", hasQuery: true},
		{raw: "http://h/a?", host: "h", path: "/a", hasQuery: true},
		{raw: "http://h/a?b?c#d?e", host: "h", path: "/a", query: "b?c", hasQuery: true},
		{raw: "http://h#d/e", host: "h", path: "/"},
		{raw: "HTTPS://H.example:8443/a", host: "H.example:8443", path: "/a"},
		{raw: "http://[::1]:80/", host: "[::1]:80", path: "/"},
		{raw: "/a/../b%2fc//d", path: "/a/../b%2fc//d"},
		{raw: "/a?u=http://x", path: "/a", query: "u=http://x", hasQuery: true},
		{raw: "", err: "neither"},
		{raw: "h/a", err: "neither"},
		{raw: "ftp://h/", err: "neither"},
		{raw: "http:///a", err: "no host"},
		{raw: "http://u:p@h/", err: "user and password"},
		{raw: "http://h/a b", err: "percent-encode"},
		{raw: "http://h/ä", err: "percent-encode"},
	} {
		t.Run(test.raw, func(t *testing.T) {
			host, path, query, hasQuery, err := explain.ParseURL(test.raw)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("got %v, want an error with %q", err, test.err)
				}
				return
			}
			if err != nil || host != test.host || path != test.path || query != test.query || hasQuery != test.hasQuery {
				t.Errorf("got %q %q %q %t, %v", host, path, query, hasQuery, err)
			}
		})
	}
}

// endpoint returns one that is reached by an exact path.
func endpoint(name, path string, change func(*routetablev1.Endpoint)) *routetablev1.Endpoint {
	e := &routetablev1.Endpoint{
		Name: name, Path: &routetablev1.Endpoint_Exact{Exact: path},
		Pool: []*routetablev1.Backend{{Url: "http://back:81/b?x", Weight: 1}},
	}
	if change != nil {
		change(e)
	}
	return e
}

func TestExplain(t *testing.T) {
	rt := &routetablev1.RouteTable{Port: 1, Endpoints: []*routetablev1.Endpoint{
		endpoint("catch-all", "", func(e *routetablev1.Endpoint) { e.Path = &routetablev1.Endpoint_Prefix{Prefix: "/all"} }),
		endpoint("drained", "/drained", func(e *routetablev1.Endpoint) { e.Pool[0].Weight = 0 }),
		endpoint("exact", "/all/a", nil),
		endpoint("post", "/all/a", func(e *routetablev1.Endpoint) { e.Methods = []string{"POST"} }),
		endpoint("full", "/full", func(e *routetablev1.Endpoint) {
			e.MaxRequests, e.Pool[0].MaxRequests = 10, 5
			e.Queue = &routetablev1.Queue{Size: 20, Timeout: durationpb.New(time.Second)}
		}),
		endpoint("rated", "/rated", func(e *routetablev1.Endpoint) {
			e.RateLimit = &routetablev1.RateLimit{
				Requests: 100, Per: durationpb.New(time.Second), Burst: 20,
				Key: &routetablev1.Key{Kind: routetablev1.KeyKind_KEY_KIND_HEADER, Name: "x-a"},
			}
		}),
		endpoint("balanced", "/balanced", func(e *routetablev1.Endpoint) {
			e.RefuseWhenUnhealthy, e.Pool[0].Backup = true, true
			e.LoadBalancing = &routetablev1.LoadBalancing{
				Policy: routetablev1.Policy_POLICY_CONSISTENT_HASH, SlowStart: durationpb.New(30 * time.Second),
				Key: &routetablev1.Key{Kind: routetablev1.KeyKind_KEY_KIND_COOKIE, Name: "Shop"},
			}
		}),
		endpoint("timed", "/timed", func(e *routetablev1.Endpoint) {
			e.Timeouts = &routetablev1.Timeouts{Request: durationpb.New(90 * time.Second)}
			e.Retry = &routetablev1.Retry{
				Attempts: 3, BudgetPercent: 20, PerTryTimeout: durationpb.New(time.Second),
				On: []routetablev1.RetryOn{routetablev1.RetryOn_RETRY_ON_RESET, routetablev1.RetryOn_RETRY_ON_503},
			}
		}),
		endpoint("virtual", "/virtual", func(e *routetablev1.Endpoint) { e.ReplaceHost = true }),
	}}
	sent := func(line, host string, weight uint32) []*fleetv1.BackendRequest {
		return []*fleetv1.BackendRequest{{Url: "http://back:81/b?x", Weight: weight, RequestLine: line, Host: host}}
	}
	for _, test := range []struct {
		name string
		q    *fleetv1.ExplainRequest
		want *fleetv1.ExplainResponse // mismatches: the first only
	}{
		{
			"the less specific comes first", &fleetv1.ExplainRequest{Url: "http://h/all/a?q"},
			&fleetv1.ExplainResponse{
				Endpoint: "exact", Backends: sent("GET /b?x&q HTTP/1.1", "h", 1),
				Mismatches: []*fleetv1.Mismatch{{Endpoint: "catch-all", Reason: "matches too, but exact is more specific"}},
			},
		},
		{
			"the backend's own host", &fleetv1.ExplainRequest{Url: "http://h/virtual", Method: "HEAD"},
			&fleetv1.ExplainResponse{Endpoint: "virtual", Backends: sent("HEAD /b?x HTTP/1.1", "back:81", 1)},
		},
		{
			"every backend drained", &fleetv1.ExplainRequest{Url: "http://h/drained"},
			&fleetv1.ExplainResponse{Status: 503, Endpoint: "drained", Backends: sent("GET /b?x HTTP/1.1", "h", 0)},
		},
		{
			"settings", &fleetv1.ExplainRequest{Url: "http://h/timed"},
			&fleetv1.ExplainResponse{
				Endpoint: "timed", Backends: sent("GET /b?x HTTP/1.1", "h", 1),
				Settings: []string{
					"request timeout: 1m30s for the whole request",
					"retry: 3 attempts of 1s at most, on reset, 503; budget 20%",
				},
			},
		},
		{
			"a queue", &fleetv1.ExplainRequest{Url: "http://h/full"},
			&fleetv1.ExplainResponse{
				Endpoint: "full", Backends: sent("GET /b?x HTTP/1.1", "h", 1),
				Settings: []string{"max requests: 10, 5 to http://back:81/b?x in flight on each data plane; 20 more wait for up to 1s"},
			},
		},
		{
			"a rate", &fleetv1.ExplainRequest{Url: "http://h/rated"},
			&fleetv1.ExplainResponse{
				Endpoint: "rated", Backends: sent("GET /b?x HTTP/1.1", "h", 1),
				Settings: []string{"rate limit: 100 requests per 1s, 20 at once, for each value of x-a; over the whole fleet"},
			},
		},
		{
			"a policy, backups and refusal", &fleetv1.ExplainRequest{Url: "http://h/balanced"},
			&fleetv1.ExplainResponse{
				Endpoint: "balanced", Backends: sent("GET /b?x HTTP/1.1", "h", 1),
				Settings: []string{
					"load balancing: ConsistentHash on cookie:Shop, slow start over 30s",
					"only when no other can be used: http://back:81/b?x",
					"when no backend is healthy: 503",
				},
			},
		},
		{"nothing matches", &fleetv1.ExplainRequest{Url: "/none"}, &fleetv1.ExplainResponse{Status: 404}},
		{"metrics", &fleetv1.ExplainRequest{Url: "/metrics"}, &fleetv1.ExplainResponse{Status: 200}},
		{"above the root", &fleetv1.ExplainRequest{Url: "/%2e%2e/x"}, &fleetv1.ExplainResponse{Status: 400}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := explain.Explain(rt, test.q)
			if err != nil {
				t.Fatal(err)
			}
			got.Mismatches = got.GetMismatches()[:min(len(got.GetMismatches()), len(test.want.GetMismatches()))]
			if diff := cmp.Diff(got, test.want, protocmp.Transform()); diff != "" {
				t.Errorf("(-got +want):\n%s", diff)
			}
		})
	}
}

func TestTheMostTellingMismatchesAreKept(t *testing.T) {
	rt := &routetablev1.RouteTable{Port: 1}
	for i := range 500 {
		rt.Endpoints = append(rt.Endpoints, endpoint(fmt.Sprintf("e%03d", i), fmt.Sprintf("/%d", i), nil))
	}
	rt.Endpoints = append(rt.Endpoints, endpoint("z", "/wanted", func(e *routetablev1.Endpoint) { e.Methods = []string{"POST"} }))
	got, err := explain.Explain(rt, &fleetv1.ExplainRequest{Url: "/wanted"})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(got.GetMismatches()); got.GetStatus() != 405 || n != 100 || got.GetMismatchesOmitted() != 401 || got.GetMismatches()[0].GetEndpoint() != "z" {
		t.Errorf("status %d, %d mismatches, %d omitted, first %v", got.GetStatus(), n, got.GetMismatchesOmitted(), got.GetMismatches()[0])
	}
}

// Whatever is asked, the answer is an error or one of the known statuses.
func FuzzExplain(f *testing.F) {
	f.Add("GET", "http://h/all/a?q", "x-beta", "1")
	f.Add("", "/%2e%2e/x", "host", "h:80")
	f.Add("POST", "http://[::1]/metrics#f", "", "")
	rt := &routetablev1.RouteTable{Port: 1, Endpoints: []*routetablev1.Endpoint{
		endpoint("all", "", func(e *routetablev1.Endpoint) { e.Path = &routetablev1.Endpoint_Prefix{Prefix: "/all"} }),
		endpoint("post", "/metrics", func(e *routetablev1.Endpoint) { e.Methods = []string{"POST"} }),
	}}
	f.Fuzz(func(t *testing.T, method, url, name, value string) {
		got, err := explain.Explain(rt, &fleetv1.ExplainRequest{
			Method: method, Url: url, Headers: []*fleetv1.Header{{Name: name, Value: value}},
		})
		if err != nil {
			return
		}
		switch got.GetStatus() {
		case 0, 200, 400, 404, 405, 503:
		default:
			t.Errorf("status %d", got.GetStatus())
		}
		if (got.GetEndpoint() == "") != (len(got.GetBackends()) == 0) {
			t.Errorf("got %v", got)
		}
		for _, b := range got.GetBackends() {
			if strings.ContainsAny(b.GetRequestLine(), "\r\n") {
				t.Errorf("request line %q", b.GetRequestLine())
			}
		}
	})
}
