package assert_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"reverseproxy/controlplane/internal/assert"
	"reverseproxy/controlplane/internal/compile"
	"reverseproxy/controlplane/internal/config"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

const endpoints = `port: 8000
endpoints:
- {name: index, from: /index, host: shop.example.com, pool: ["http://a/in?v=1", http://b/in]}
- {name: both, from: /both, pool: [http://a/in, http://b/out]}
- {name: plain, from: /plain/*, pool: [http://a]}
- {name: beta, from: /plain/*, headers: {x-beta: "1"}, pool: [http://a/beta]}
- {name: deep, from: /plain/deep/*, pool: [http://a]}
- {name: post, from: /form, methods: [POST, PUT], pool: [http://a]}
- {name: drained, from: /drained, pool: [{url: http://a, weight: 0}]}
- {name: moved, from: /moved/*, redirect: {to: "https://${host}/new${path}?${query}", status: 308}}
- {name: robots, from: /robots.txt, respond: {status: 410}}
- {name: odd, from: /odd/*, rewrite: {regex: {match: ^/odd, replace: /..}}, pool: [http://a]}
tests:
`

// check loads a file and runs its tests.
func check(t testing.TB, file string) error {
	t.Helper()
	c, err := config.Load("f", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	rt, err := compile.Compile(c)
	if err != nil {
		t.Fatal(err)
	}
	return assert.Check("f", c.Tests, rt)
}

func TestCheck(t *testing.T) {
	for _, test := range []struct {
		name    string
		request string
		expect  string
		want    string // the problem without its place and the request; empty: it holds
	}{
		{"endpoint", "url: http://shop.example.com/index", "endpoint: index", ""},
		{"a port and capitals", "url: HTTP://Shop.Example.com:80/index", "endpoint: index", ""},
		{"another endpoint", "url: http://shop.example.com/plain/a", "endpoint: index",
			`endpoint plain takes it; index does not: path is "/plain/a", not /index`},
		{"a path alone has no host", "url: /index", "endpoint: index",
			`no endpoint takes it; index does not: host is "", not shop.example.com`},
		{"a better one", "url: /plain/deep/x", "endpoint: plain", "endpoint deep takes it; plain matches too, but deep is more specific"},
		{"no such endpoint", "url: /both", "endpoint: boht", "endpoint both takes it; no endpoint is named boht"},
		{"none", "url: /nowhere", "endpoint: none", ""},
		{"none, but there is one", "url: /both", "endpoint: none", "endpoint both takes it; none was to take it"},
		{"headers", "url: /plain, headers: {X-Beta: \"1\"}", "endpoint: beta", ""},
		{"another header", "url: /plain, headers: {x-beta: \"2\"}", "endpoint: beta",
			`endpoint plain takes it; beta does not: header x-beta is "2", not "1"`},
		{"method", "url: /form, method: PUT", "endpoint: post", ""},
		{"another method", "url: /form", "endpoint: post",
			`no endpoint takes it with this method, only with POST, PUT; post does not: method is "GET", not POST or PUT`},
		{"above the root", "url: /..", "endpoint: both",
			`the path is not valid, or it climbs above the root; both does not: the path "/.." is not valid`},

		{"path of the pool", `url: "http://shop.example.com/index?q"`, "backendPath: /out", `endpoint index takes it, and backend http://a/in?v=1 is sent /in, not /out`},
		{"path without the query", `url: "http://shop.example.com/index?q"`, "backendPath: /in", ""},
		{"path with a query that not all have", `url: "http://shop.example.com/index?q"`, `backendPath: "/in?v=1&q"`,
			"endpoint index takes it, and backend http://b/in is sent /in?q, not /in?v=1&q"},
		{"path as it came", `url: "/plain/a%2Fb//?x"`, `backendPath: "/plain/a%2Fb//?x"`, ""},
		{"path that one backend has", "url: /both", "backendPath: /in", "endpoint both takes it, and backend http://b/out is sent /out, not /in"},
		{"path that nobody is sent", "url: /nowhere", "backendPath: /in", "no endpoint takes it, and no backend is sent /in"},
		{"path of a redirect", "url: http://h/moved", "backendPath: /in", "endpoint moved takes it, and no backend is sent /in"},
		{"path that cannot be made", "url: /odd/xx/a", "backendPath: /in", "endpoint odd takes it, and no backend is sent /in"},

		{"404", "url: /nowhere", "status: 404", ""},
		{"405", "url: /form", "status: 405", ""},
		{"400", "url: /%2e%2e", "status: 400", ""},
		{"400 of a rewrite", "url: /odd/xx/a", "status: 400", ""},
		{"503", "url: /drained", "status: 503", ""},
		{"308", "url: http://h/moved", "status: 308", ""},
		{"410", "url: /robots.txt", "status: 410", ""},
		{"metrics", "url: /metrics", "status: 200", ""},
		{"status of metrics", "url: /metrics", "status: 404",
			"no endpoint takes it, and it is for the data plane's own metrics, and the proxy answers 200 OK, not 404"},
		{"another status", "url: /form", "status: 404",
			"no endpoint takes it with this method, only with POST, PUT, and the proxy answers 405 Method Not Allowed, not 404"},
		{"status of a backend", "url: /both", "status: 200",
			"endpoint both takes it, and its backend decides about the status; 200 can only be expected where the proxy answers itself"},

		{"location", `url: "http://h:80/moved/a?b"`, `location: "https://h/new/moved/a?b"`, ""},
		{"another location", "url: http://h/moved", "location: https://h/moved",
			"endpoint moved takes it, and it is redirected to https://h/new/moved, not https://h/moved"},
		{"location without a host", "url: /moved", "location: https://h/new/moved",
			"endpoint moved takes it, but it has no host to be redirected to; write the url with one"},
		{"location of none", "url: /both", "location: /", "endpoint both takes it, and it is not redirected"},

		{"all hold", "url: http://h/moved", "endpoint: moved, status: 308, location: https://h/new/moved", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			file := endpoints + fmt.Sprintf("- request: {%s}\n  expect: {%s}\n", test.request, test.expect)
			got := ""
			if err := check(t, file); err != nil {
				got = err.Error()
			}
			if (test.want == "") != (got == "") || !strings.HasSuffix(got, test.want) {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestEveryFailureHasItsPlace(t *testing.T) {
	err := check(t, endpoints+`- name: the shop
  request: {url: http://shop.example.com/index}
  expect: {status: 404, endpoint: index, backendPath: /x}
- request: {url: /plain, method: POST}
  expect:
    endpoint: plain
- request: {url: "/plain?x", method: POST}
  expect:
    endpoint: both
`)
	want := []string{
		`f:16:20: tests[0].expect.status: test "the shop": GET http://shop.example.com/index: endpoint index takes it, and its backend decides about the status; 404 can only be expected where the proxy answers itself`,
		`f:16:55: tests[0].expect.backendPath: test "the shop": GET http://shop.example.com/index: endpoint index takes it, and backend http://a/in?v=1 is sent /in, not /x`,
		`f:22:15: tests[2].expect.endpoint: POST /plain?x: endpoint plain takes it; both does not: path is "/plain", not /both`,
	}
	var list *config.Errors
	if !errors.As(err, &list) {
		t.Fatalf("%T %v", err, err)
	}
	if diff := cmp.Diff(want, strings.Split(err.Error(), "\n")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestNoTestsHoldAlways(t *testing.T) {
	if err := check(t, strings.TrimSuffix(endpoints, "\n")+" []\n"); err != nil {
		t.Error(err)
	}
}

// Tests say nothing about requests: a file with other tests has the same version.
func TestTestsDoNotChangeTheVersion(t *testing.T) {
	version := func(file string) string {
		c, err := config.Load("f", []byte(file))
		if err != nil {
			t.Fatal(err)
		}
		rt, err := compile.Compile(c)
		if err != nil {
			t.Fatal(err)
		}
		return routetable.Version(rt)
	}
	with := version(endpoints + "- {request: {url: /both}, expect: {endpoint: none}}\n")
	if without := version(strings.TrimSuffix(endpoints, "tests:\n")); with != without {
		t.Errorf("%s with tests, %s without", with, without)
	}
}

// BenchmarkCheck is a file in which every endpoint has a test; half of them fail.
func BenchmarkCheck(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			rt := &routetablev1.RouteTable{}
			tests := make([]config.Test, n)
			for i := range n {
				name := fmt.Sprintf("e%06d", i)
				rt.Endpoints = append(rt.Endpoints, &routetablev1.Endpoint{
					Name: name, Path: &routetablev1.Endpoint_Prefix{Prefix: "/shop/" + name}, Hosts: []string{"*.example.com"},
					Pool: []*routetablev1.Backend{{Url: "http://h/p", Weight: 1}},
				})
				tests[i] = config.Test{Method: "GET", URL: "http://a.example.com/shop/" + name + "/x", Expect: []config.Expectation{
					{Kind: config.ExpectEndpoint, Value: name}, {Kind: config.ExpectBackendPath, Value: []string{"/p/x", "/p"}[i%2]},
				}}
			}
			for b.Loop() {
				var list *config.Errors
				if err := assert.Check("f", tests, rt); !errors.As(err, &list) || len(list.Problems) != n/2 {
					b.Fatal(err)
				}
			}
		})
	}
}
