package health_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"reverseproxy/dataplane/internal/health"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

type check = routetablev1.ActiveCheck

// TestProbeResults sends probes to backends that answer in all kinds of ways.
func TestProbeResults(t *testing.T) {
	body := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }
	}
	cut := func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx")
		_ = c.Close()
	}
	nothing := func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	long := strings.Repeat("x", 70_000)
	tests := []struct {
		name    string
		change  func(*check)
		answer  http.HandlerFunc
		failure string // empty: healthy
	}{
		{"200", nil, status(200), ""},
		{"204", nil, status(204), ""},
		{"500", nil, status(500), "status 500, expected 2xx"},
		{"redirects are not followed", nil, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/other", http.StatusFound) }, "status 302, expected 2xx"},
		{"expected statuses", func(c *check) {
			c.ExpectStatus = []*routetablev1.StatusRange{{First: 200, Last: 204}, {First: 401, Last: 401}, {First: 500, Last: 599}}
		}, status(404), "status 404, expected 200-204, 401, 5xx"},
		{"an expected failure", func(c *check) { c.ExpectStatus = []*routetablev1.StatusRange{{First: 503, Last: 503}} }, status(503), ""},
		{"body", func(c *check) { c.ExpectBody = "all right" }, body("it is all right here"), ""},
		{"another body", func(c *check) { c.ExpectBody = "all right" }, body("all wrong"), `the body does not contain "all right"`},
		{"long body", nil, body(long), ""},
		{"too late in a long body", func(c *check) { c.ExpectBody = "end" }, body(long + "end"), `the body does not contain "end"`},
		{"body that breaks off", nil, cut, "the body breaks off: the connection was closed before the end of the answer"},
		{"no answer", nil, nothing, "no answer within 100ms"},
		{"a connection is enough", func(c *check) { tcp(c) }, status(500), ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			o := newOrigin(t)
			o.answers(test.answer)
			f := start(t, nil)
			f.serve(probed(endpoint("e", o.URL, "http://127.0.0.1:1"), func(c *check) {
				if test.change != nil {
					test.change(c)
				}
				c.UnhealthyAfter = 2
			}))
			// The other backend refuses connections: when it is out, the first has been
			// probed as often.
			eventually(t, "the backend that refuses is unhealthy", func() bool { return !f.manager.Members("e")[1-index(f, o.URL)].Healthy })
			eventually(t, "the result is as expected", func() bool {
				m := f.manager.Members("e")[index(f, o.URL)]
				return m.Healthy == (test.failure == "") && m.Reason == test.failure
			})
		})
	}
}

// index returns where in the status a backend is.
func index(f *fixture, url string) int {
	for i, m := range f.manager.Members("e") {
		if m.URL == url {
			return i
		}
	}
	f.t.Fatalf("%s is not in %v", url, f.manager.Members("e"))
	return 0
}

func tcp(c *check) {
	c.Tcp, c.Method, c.Path, c.ExpectStatus = true, "", "", nil
}

// TestProbeRequest looks at what a backend is sent.
func TestProbeRequest(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1") // is not used
	o := newOrigin(t)
	f := start(t, nil)
	f.serve(probed(endpoint("e", o.URL+"/path"), func(c *check) {
		c.Method, c.Path, c.Host = "POST", "/a%2Fb//c?x=%20&y", "shop.example.com:81"
		c.Headers = []*routetablev1.Header{{Name: "authorization", Value: "Bearer x"}, {Name: "X-Probe", Value: "1"}}
	}))
	eventually(t, "a probe", func() bool { n, _ := o.seen(); return n > 0 })
	_, r := o.seen()
	got := fmt.Sprintf("%s %s %s %s %s %s", r.Method, r.RequestURI, r.Host, r.Header.Get("Authorization"), r.Header.Get("X-Probe"), r.Header.Get("User-Agent"))
	if diff := cmp.Diff("POST /a%2Fb//c?x=%20&y shop.example.com:81 Bearer x 1 reverseproxy-health-check", got); diff != "" {
		t.Errorf("probe (-want +got):\n%s", diff)
	}
	if !r.Close {
		t.Error("the connection is kept")
	}

	f.serve(probed(endpoint("e", o.URL)))
	eventually(t, "the host of the URL", func() bool { _, r := o.seen(); return r.Host == strings.TrimPrefix(o.URL, "http://") })
}

// TestProbePort probes another port than that of the backend.
func TestProbePort(t *testing.T) {
	o, other := newOrigin(t), newOrigin(t)
	o.answers(status(500))
	f := start(t, nil)
	f.serve(probed(endpoint("e", o.URL), func(c *check) { c.Port = uint32(other.Listener.Addr().(*net.TCPAddr).Port) }))
	eventually(t, "five probes", func() bool { n, _ := other.seen(); return n >= 5 })
	if n, _ := o.seen(); n > 0 || !f.manager.Members("e")[0].Healthy {
		t.Errorf("the backend has had %d probes; %+v", n, f.manager.Members("e"))
	}
}

// TestBackendThatDoesNotAccept is one whose machine is gone.
func TestBackendThatDoesNotAccept(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }() // nobody accepts, but the kernel does
	for _, change := range []func(*check){func(*check) {}, tcp} {
		f := start(t, nil)
		f.serve(probed(endpoint("e", "http://"+l.Addr().String(), "http://127.0.0.1:1"), change, func(c *check) {
			c.Timeout = durationpb.New(c.Interval.AsDuration())
		}))
		eventually(t, "the one that refuses is unhealthy", func() bool { return len(f.manager.Unusable()) > 0 })
		var reasons []health.Status
		eventually(t, "a reason", func() bool { reasons = f.manager.Unusable(); return reasons[0].Reason != "" })
		if got := f.manager.Members("e")[index(f, "http://127.0.0.1:1")].Reason; got != "connect: connection refused" {
			t.Errorf("reason %q", got)
		}
	}
}
