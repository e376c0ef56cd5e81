package routetable_test

import (
	"net/url"
	"strings"
	"testing"

	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

func TestParseBackendURL(t *testing.T) {
	tests := []struct{ raw, authority, address, path, query string }{
		{"http://h", "h", "h:80", "", ""},
		{"http://h/", "h", "h:80", "/", ""},
		{"http://h:8080/a/b?c=d&e", "h:8080", "h:8080", "/a/b", "c=d&e"},
		{"http://h?c", "h", "h:80", "", "c"},
		{"http://h?", "h", "h:80", "", ""},
		{"http://h/?", "h", "h:80", "/", ""},
		{"http://h?a/b?c", "h", "h:80", "", "a/b?c"},
		{"http://LocalHost:1", "LocalHost:1", "localhost:1", "", ""},
		{"http://[::1]:81/x", "[::1]:81", "[::1]:81", "/x", ""},
		{"http://[::1]", "[::1]", "[::1]:80", "", ""},
		{"http://h.:80", "h.:80", "h.:80", "", ""},
		{"http://10.0.0.1:65535/%20|[", "10.0.0.1:65535", "10.0.0.1:65535", "/%20|[", ""},
		{"http://h?100%", "h", "h:80", "", "100%"},
	}
	for _, test := range tests {
		t.Run(test.raw, func(t *testing.T) {
			u, err := routetable.ParseBackendURL(test.raw)
			if err != nil {
				t.Fatal(err)
			}
			if u.String() != test.raw || u.Authority() != test.authority || u.Address() != test.address || u.Path() != test.path || u.Query() != test.query {
				t.Errorf("got %q %q %q %q %q", u.String(), u.Authority(), u.Address(), u.Path(), u.Query())
			}
		})
	}
}

func TestParseBackendURLRefuses(t *testing.T) {
	for raw, want := range map[string]string{
		"":                                      "is empty",
		"localhost:5000":                        "does not start with http://",
		"//h":                                   "does not start with http://",
		"https://h":                             "https, which is not supported",
		"HTTP://h":                              "in lower case",
		"ftp://h":                               `the scheme "ftp"`,
		"unix:///run/x":                         `the scheme "unix"`,
		"http://":                               "has no host",
		"http:///a":                             "has no host",
		"http://:80":                            "has no host",
		"http://?a":                             "has no host",
		"http://u:secret@h":                     "user or password",
		"http://u:sec#ret@h":                    "",
		"http://h#f":                            "fragment",
		"http://h/a#f":                          "fragment",
		"http://h:":                             `the port ""`,
		"http://h:0":                            `the port "0"`,
		"http://h:080":                          `the port "080"`,
		"http://h:+80":                          `the port "+80"`,
		"http://h:65536":                        `the port "65536"`,
		"http://h:http":                         `the port "http"`,
		"http://a_b..c":                         "empty label",
		"http://.":                              "empty label",
		"http://h h":                            "contains ' '",
		"http://h\n":                            "contains '\\n'",
		"http://::1":                            "contains ':'",
		"http://[::1":                           "[addr]",
		"http://[::1]x":                         "[addr]",
		"http://[::1]:x":                        `the port "x"`,
		"http://é":                              "xn--",
		"http://h/a b":                          "must be percent-encoded",
		"http://h/é":                            "must be percent-encoded",
		"http://h/\x7f":                         "must be percent-encoded",
		"http://h/a?\r\nX: y":                   "must be percent-encoded",
		"http://h/%2":                           "two hexadecimal digits",
		"http://h/%2?0":                         "two hexadecimal digits",
		"http://h/%d%s%":                        "two hexadecimal digits",
		"http://h/" + strings.Repeat("a", 5000): "at most 4096",
	} {
		u, err := routetable.ParseBackendURL(raw)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v, want %q", raw, u, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the error shows the password: %v", raw, err)
		}
		if err != nil && strings.Contains(err.Error(), "%!") {
			t.Errorf("%q: the error is not well formatted: %v", raw, err)
		}
	}
}

func TestTarget(t *testing.T) {
	tests := []struct{ from, url, request, want string }{
		{"/index", "http://h", "/index", "/index"},
		{"/index", "http://h", "/x/../%69ndex?a=b%20", "/x/../%69ndex?a=b%20"},
		{"/index", "http://h/index-proxied", "/index", "/index-proxied"},
		{"/index", "http://h/index-proxied", "/index?", "/index-proxied?"},
		{"/index", "http://h/index-proxied", "/index?q=/%zz", "/index-proxied?q=/%zz"},
		{"/index", "http://h/", "/index", "/"},
		{"/", "http://h/a", "", "/a"},
		{"/", "http://h", "", "/"},
		{"/*", "http://h", "", "/"},
		{"/*", "http://h?a", "?b", "/?a&b"},
		{"/*", "http://h/static", "", "/static/"},

		{"/assets/*", "http://h/static", "/assets", "/static"},
		{"/assets/*", "http://h/static", "/assets/", "/static/"},
		{"/assets/*", "http://h/static", "/assets/a", "/static/a"},
		{"/assets/*", "http://h/static", "/assets/a/b", "/static/a/b"},
		{"/assets/*", "http://h/static", "/assets//b", "/static//b"},
		{"/assets/*", "http://h/static", "/%61ssets/%62%2f%e2", "/static/%62%2f%e2"},
		{"/assets/*", "http://h/static", "/x/../assets/a/./%63/%2E%2e/d", "/static/a/d"},
		{"/assets/*", "http://h/static", "/assets/a/..", "/static/"},
		{"/assets/*", "http://h/static", "/assets/.", "/static/"},
		{"/assets/*", "http://h/static", "/./assets", "/static"},
		{"/assets/*", "http://h/static/", "/assets", "/static/"},
		{"/assets/*", "http://h/static/", "/assets/a", "/static/a"},
		{"/assets/*", "http://h/", "/assets", "/"},
		{"/assets/*", "http://h/", "/assets/a", "/a"},
		{"/assets/*", "http://h/", "/assets//a", "//a"},
		{"/assets/*", "http://h", "/assets//a/../b", "/assets//a/../b"},
		{"/a//b/*", "http://h/s", "/a//b/c", "/s/c"},
		{"/*", "http://h/static", "/a", "/static/a"},
		{"/*", "http://h/static", "/", "/static/"},
		{"/*", "http://h/static", "/a/..", "/static/"},

		{"/*", "http://h?a=1", "/x", "/x?a=1"},
		{"/*", "http://h?a=1", "/x?", "/x?a=1"},
		{"/*", "http://h?a=1", "/x?b=2&a=3", "/x?a=1&b=2&a=3"},
		{"/*", "http://h/s?a=1", "/x?b", "/s/x?a=1&b"},
		{"/*", "http://h/s?", "/x?b", "/s/x?b"},
		{"/*", "http://h/s?", "/x", "/s/x"},
	}
	for _, test := range tests {
		t.Run(test.from+" "+test.url+" "+test.request, func(t *testing.T) {
			path, isPrefix, err := routetable.ParseFrom(test.from)
			if err != nil {
				t.Fatal(err)
			}
			e := &routetablev1.Endpoint{Path: exact(path)}
			if isPrefix {
				e.Path = prefix(path)
			}
			var r routetable.Request
			r.Path, r.Query, r.HasQuery = strings.Cut(test.request, "?")
			if why := routetable.Mismatch(e, &r); why != "" {
				t.Fatalf("the endpoint does not match: %s", why)
			}
			got, err := routetable.Target(e, &routetablev1.Backend{Url: test.url}, &r)
			if got != test.want || err != nil {
				t.Errorf("target is %q, %v; want %q", got, err, test.want)
			}
		})
	}
	if _, err := routetable.Target(&routetablev1.Endpoint{}, &routetablev1.Backend{Url: "http://h"}, &routetable.Request{Path: "/.."}); err == nil {
		t.Error("a path above the root has a target")
	}
}

// What is accepted must be a URL for everybody else too, and mean the same.
func FuzzParseBackendURL(f *testing.F) {
	for _, seed := range []string{
		"http://h", "http://h:80/a?b", "http://[::1]:1/", "http://h?a", "http://h/%20?%", "http://u@h", "http://h#", "http://a.b.:9", "http://h:99999",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := routetable.ParseBackendURL(raw)
		if err != nil {
			return
		}
		std, err := url.Parse(raw)
		if err != nil {
			t.Fatalf("%q is accepted, but not by net/url: %v", raw, err)
		}
		path := strings.TrimPrefix(raw[:strings.IndexByte(raw+"?", '?')], "http://"+u.Authority())
		if std.Host != u.Authority() || std.RawQuery != u.Query() || path != u.Path() || std.User != nil || std.Fragment != "" {
			t.Fatalf("%q: got %q %q %q, net/url %q %q %q", raw, u.Authority(), u.Path(), u.Query(), std.Host, std.EscapedPath(), std.RawQuery)
		}
		if std.Port() == "" != strings.HasSuffix(u.Address(), ":80") && std.Port() != "80" {
			t.Fatalf("%q: address %q, port %q", raw, u.Address(), std.Port())
		}
		target := routetable.AppendTarget(nil, u.Path(), u.Query(), false, 1, []byte("/a/b"), []byte("c"), true)
		for _, c := range target {
			if c <= ' ' || c > '~' {
				t.Fatalf("%q makes the target %q", raw, target)
			}
		}
		if target[0] != '/' {
			t.Fatalf("%q makes the target %q", raw, target)
		}
	})
}
