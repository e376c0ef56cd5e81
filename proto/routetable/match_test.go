package routetable_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// endpoint makes one of its name, its path and conditions: "host:", "method:" or
// "name=value".
func endpoint(name, from string, conditions ...string) *routetablev1.Endpoint {
	path, isPrefix, err := routetable.ParseFrom(from)
	if err != nil {
		panic(err)
	}
	e := &routetablev1.Endpoint{
		Name: name, Path: exact(path), Timeouts: timeouts(),
		Pool: []*routetablev1.Backend{{Url: "http://h", Weight: 1}},
	}
	if isPrefix {
		e.Path = prefix(path)
	}
	for _, c := range conditions {
		if host, ok := strings.CutPrefix(c, "host:"); ok {
			e.Hosts = append(e.Hosts, host)
		} else if method, ok := strings.CutPrefix(c, "method:"); ok {
			e.Methods = append(e.Methods, method)
		} else {
			name, value, _ := strings.Cut(c, "=")
			e.Headers = append(e.Headers, &routetablev1.HeaderMatch{Name: name, Value: value})
		}
	}
	return e
}

func tableOf(endpoints ...*routetablev1.Endpoint) *routetablev1.RouteTable {
	t := &routetablev1.RouteTable{Port: 8000, Limits: limits(), Endpoints: endpoints}
	slices.SortFunc(t.Endpoints, func(a, b *routetablev1.Endpoint) int { return strings.Compare(a.Name, b.Name) })
	return t
}

// request makes one of "METHOD host/path" and header fields "name=value".
func request(line string, fields ...string) *routetable.Request {
	method, rest, _ := strings.Cut(line, " ")
	i := strings.IndexByte(rest, '/')
	if i < 0 {
		i = len(rest)
	}
	return &routetable.Request{Method: method, Host: rest[:i], Path: rest[i:], Header: func(name string) (values []string) {
		for _, f := range fields {
			if n, v, _ := strings.Cut(f, "="); n == name {
				values = append(values, v)
			}
		}
		return values
	}}
}

func TestMatch(t *testing.T) {
	table := tableOf(
		endpoint("exact", "/index"),
		endpoint("slash", "/index/"),
		endpoint("assets", "/assets/*"),
		endpoint("deep", "/assets/deep/*"),
		endpoint("deep exact", "/assets/deep/x"),
		endpoint("all of a host", "/*", "host:shop.example.com"),
		endpoint("post", "/index", "host:shop.example.com", "method:POST"),
		endpoint("wild", "/index", "host:*.example.com"),
		endpoint("wilder", "/*", "host:*.b.example.com", "host:other.example.com"),
		endpoint("beta", "/index", "x-beta=1"),
		endpoint("beta get", "/index", "x-beta=1", "method:GET"),
		endpoint("v1", "/v", "x-v=1"),
		endpoint("v2", "/v", "x-v=2"),
		endpoint("methods", "/methods", "method:GET", "method:PUT"),
		endpoint("methods too", "/methods", "method:DELETE"),
		endpoint("methods beta", "/methods", "method:PATCH", "x-beta=1"),
		endpoint("escaped", "/a%2Fb"),
	)
	if err := routetable.Validate(table); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		request *routetable.Request
		want    string // name of the endpoint, or the methods allowed
	}{
		{"exact", request("GET h/index"), "exact"},
		{"case of paths counts", request("GET h/Index"), ""},
		{"slash at the end counts", request("GET h/index/"), "slash"},
		{"prefix itself", request("GET h/assets"), "assets"},
		{"prefix with slash", request("GET h/assets/"), "assets"},
		{"below a prefix", request("GET h/assets/a/b"), "assets"},
		{"not by half segments", request("GET h/assetsfoo"), ""},
		{"longest prefix", request("GET h/assets/deep/y"), "deep"},
		{"exact before prefix", request("GET h/assets/deep/x"), "deep exact"},
		{"below an exact path", request("GET h/assets/deep/x/y"), "deep"},
		{"normal form", request("GET h/x/../%61ssets//./y"), "assets"},
		{"escaped slash", request("GET h/a%2fb"), "escaped"},
		{"escaped slash is no slash", request("GET h/a/b"), ""},
		{"host before path", request("GET shop.example.com/index"), "all of a host"},
		{"path within the host", request("POST SHOP.example.com.:80/index"), "post"},
		{"wildcard", request("GET any.example.com/index"), "wild"},
		{"wildcard of two labels", request("GET a.c.example.com/index"), "wild"},
		{"wildcard needs a label", request("GET example.com/index"), "exact"},
		{"wildcard needs a whole label", request("GET anyexample.com/index"), "exact"},
		{"wildcard is not for an empty label", request("GET .example.com/index"), "exact"},
		{"longer wildcard", request("GET a.b.example.com/index"), "wilder"},
		{"exact in a list", request("GET other.example.com/index"), "wilder"},
		{"falls through to any host", request("GET any.example.com/assets"), "assets"},
		{"header", request("PUT h/index", "x-beta=1"), "beta"},
		{"more conditions", request("GET h/index", "x-beta=1"), "beta get"},
		{"header of another value", request("GET h/index", "x-beta=2"), "exact"},
		{"one of two lines", request("PUT h/index", "x-beta=2", "x-beta=1"), "beta"},
		{"not a list in a line", request("PUT h/index", "x-beta=2, 1"), "exact"},
		{"both by two lines: the first name", request("GET h/v", "x-v=2", "x-v=1"), "v1"},
		{"no field", request("GET h/v"), ""},
		{"method", request("PUT h/methods"), "methods"},
		{"other method", request("POST h/methods"), "DELETE GET PUT"},
		{"other method, with header", request("POST h/methods", "x-beta=1"), "DELETE GET PATCH PUT"},
		{"methods are case-sensitive", request("get h/methods"), "DELETE GET PUT"},
		{"no host", request("GET /index"), "exact"},
		{"no path", request("GET shop.example.com"), "all of a host"},
		{"asterisk", &routetable.Request{Method: "OPTIONS", Host: "shop.example.com", Path: "*"}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			e, allow, err := routetable.Match(table, test.request)
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(allow, " ")
			if e != nil {
				got = e.GetName()
				if allow != nil {
					t.Errorf("allow is %v beside an endpoint", allow)
				}
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if e != nil {
				if why := routetable.Mismatch(e, test.request); why != "" {
					t.Errorf("the endpoint that takes the request is said not to match: %s", why)
				}
			}
		})
	}
	if _, _, err := routetable.Match(table, request("GET h/..")); !errors.Is(err, routetable.ErrPath) {
		t.Errorf("above the root: %v, want ErrPath", err)
	}
}

func TestMismatch(t *testing.T) {
	e := endpoint("e", "/a/*", "host:a.example.com", "host:*.b", "method:GET", "method:PUT", "x-beta=1")
	tests := []struct {
		name    string
		request *routetable.Request
		want    string
	}{
		{"match", request("GET a.example.com/a/b", "x-beta=1"), ""},
		{"host", request("GET B:80/a"), `host is "b", not a.example.com or *.b`},
		{"path", request("GET x.b/%61b"), `path is "/ab", not /a/*`},
		{"method", request("POST x.b/a"), `method is "POST", not GET or PUT`},
		{"no header", request("GET x.b/a"), `header x-beta is missing, must be "1"`},
		{"header", request("GET x.b/a", "x-beta=2", "x-beta=3"), `header x-beta is "2, 3", not "1"`},
		{"bad path", request("GET x.b/.."), `the path "/.." is not valid`},
		{"asterisk", &routetable.Request{Method: "OPTIONS", Host: "x.b", Path: "*"}, `path is "*", not /a/*`},
		{"no header function", &routetable.Request{Method: "GET", Host: "x.b", Path: "/a"}, `header x-beta is missing, must be "1"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, routetable.Mismatch(e, test.request)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
