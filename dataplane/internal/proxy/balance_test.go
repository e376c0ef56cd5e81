package proxy_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

// hashed is an endpoint for all requests whose four backends are chosen by a key.
func hashed(kind routetablev1.KeyKind, name string) *routetablev1.Endpoint {
	e := anything()
	e.Pool = nil
	for i := range 4 {
		e.Pool = append(e.Pool, &routetablev1.Backend{Url: fmt.Sprintf("http://origin%d:80", i), Weight: 1})
	}
	e.LoadBalancing = &routetablev1.LoadBalancing{
		Policy: routetablev1.Policy_POLICY_CONSISTENT_HASH, Key: &routetablev1.Key{Kind: kind, Name: name},
	}
	return e
}

// oneOf is an endpoint for all requests whose one backend is chosen by a policy.
func oneOf(p routetablev1.Policy, k *routetablev1.Key) *routetablev1.Endpoint {
	e := anything()
	e.LoadBalancing = &routetablev1.LoadBalancing{Policy: p, Key: k}
	return e
}

// ask sends a request from a client of its own, has it answered, and returns which
// backend was asked and what the client got.
func (w *world) ask(head string) (addr, response string) {
	w.Helper()
	c := w.accept()
	before := len(w.dialled)
	w.data(c, head)
	if len(w.dialled) != before+1 {
		w.Fatalf("%q: %d connections are dialled", head, len(w.dialled)-before)
	}
	o := w.dialled[before]
	w.connect(o)
	w.data(o, strings.Replace(okay, "\r\n", "\r\nConnection: close\r\n", 1)) // so that none rests
	return o.addr, c.take()
}

// Requests with one key go to one backend, those with others to others as well, and
// those without one anywhere.
func TestHashKeys(t *testing.T) {
	for _, tt := range []struct {
		name    string
		kind    routetablev1.KeyKind
		key     string
		request func(i int) string // with key i
	}{
		{"header", routetablev1.KeyKind_KEY_KIND_HEADER, "x-user", func(i int) string {
			return fmt.Sprintf("GET / HTTP/1.1\r\nHost: a\r\nX-USER:  %d \r\nX-User: other\r\n\r\n", i)
		}},
		{"path", routetablev1.KeyKind_KEY_KIND_PATH, "", func(i int) string {
			return fmt.Sprintf("GET /x/../%%61/%d?random HTTP/1.1\r\nHost: a\r\n\r\n", i)
		}},
		{"cookie", routetablev1.KeyKind_KEY_KIND_COOKIE, "Sid", func(i int) string {
			return fmt.Sprintf("GET / HTTP/1.1\r\nHost: a\r\nCookie: a=b; sid=x\r\nCookie: Sid=%d; Sid=other\r\n\r\n", i)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			one, two := newWorld(t, hashed(tt.kind, tt.key)), newWorld(t, hashed(tt.kind, tt.key))
			used := map[string]bool{}
			for i := range 50 {
				a, response := one.ask(tt.request(i))
				b, _ := one.ask(tt.request(i))
				other, _ := two.ask(tt.request(i))
				if a != b || a != other {
					t.Errorf("key %d goes to %s, %s and elsewhere to %s", i, a, b, other)
				}
				if strings.Contains(response, "Set-Cookie") {
					t.Errorf("the client gets %q", response)
				}
				used[a] = true
			}
			if len(used) != 4 {
				t.Errorf("50 keys go to %d of 4 backends", len(used))
			}
		})
	}
	w := newWorld(t, hashed(routetablev1.KeyKind_KEY_KIND_PATH, ""))
	a, _ := w.ask("GET /a/b HTTP/1.1\r\nHost: a\r\n\r\n")
	for _, path := range []string{"/a/b?q", "/./a/%62", "http://other/a/b"} {
		if b, _ := w.ask("GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n"); a != b {
			t.Errorf("%s goes to %s, /a/b to %s", path, b, a)
		}
	}
	for _, kind := range []routetablev1.KeyKind{routetablev1.KeyKind_KEY_KIND_CLIENT_IP, routetablev1.KeyKind_KEY_KIND_HEADER} {
		name := map[routetablev1.KeyKind]string{routetablev1.KeyKind_KEY_KIND_HEADER: "x-none"}[kind]
		w, used := newWorld(t, hashed(kind, name)), map[string]bool{}
		for range 100 {
			addr, _ := w.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			used[addr] = true
		}
		// All are from one address; without the header nobody has a key.
		if want := map[bool]int{true: 1, false: 4}[name == ""]; len(used) != want {
			t.Errorf("%v: %d backends are used, want %d", kind, len(used), want)
		}
	}
}

var setCookie = regexp.MustCompile(`\r\nSet-Cookie: Sid=([0-9a-f]{32}); Path=/; HttpOnly; SameSite=Lax\r\n`)

// A client without the cookie is given one that leads to where it was sent.
func TestCookieIsMade(t *testing.T) {
	e := hashed(routetablev1.KeyKind_KEY_KIND_COOKIE, "Sid")
	one, two := newWorld(t, e), newWorld(t, e)
	seen, used := map[string]bool{}, map[string]bool{}
	for _, fields := range []string{"", "Cookie: a=b\r\n", "Cookie: sid=abc\r\n", "Cookie: Sid=\r\n", "Cookie: Sid\r\n"} {
		for range 10 {
			addr, response := one.ask("GET / HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n")
			match := setCookie.FindStringSubmatch(response)
			if match == nil || seen[match[1]] || strings.Count(response, "Set-Cookie") != 1 {
				t.Fatalf("%q: the client gets %q", fields, response)
			}
			seen[match[1]], used[addr] = true, true
			for _, w := range []*world{one, two} {
				if again, response := w.ask("GET /x HTTP/1.1\r\nHost: a\r\nCookie: Sid=" + match[1] + "\r\n\r\n"); again != addr || strings.Contains(response, "Set-Cookie") {
					t.Errorf("with its cookie the client is sent to %s, before to %s, and gets %q", again, addr, response)
				}
			}
		}
	}
	if len(used) == 1 {
		t.Error("50 clients are sent to one backend")
	}
}

// Cookies of the backend pass, and a switch of protocols gives the cookie as well.
func TestCookieBesideOthers(t *testing.T) {
	w := newWorld(t, hashed(routetablev1.KeyKind_KEY_KIND_COOKIE, "Sid"))
	c := w.accept()
	w.data(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	w.connect(w.dialled[0])
	w.data(w.dialled[0], "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n")
	interim, final, _ := strings.Cut(c.take(), "\r\n\r\n")
	if strings.Contains(interim, "Set-Cookie") || !strings.Contains(final, "\r\nSet-Cookie: a=b\r\n") || !setCookie.MatchString(final) {
		t.Errorf("the client gets %q and %q", interim, final)
	}
	w.data(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
	o := w.dialled[1]
	w.connect(o)
	w.data(o, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
	if got := c.take(); !setCookie.MatchString(got) {
		t.Errorf("the client gets %q", got)
	}
}

// The next request of a connection has nothing of the one before.
func TestCookieIsNotLeftOver(t *testing.T) {
	w := newWorld(t, hashed(routetablev1.KeyKind_KEY_KIND_COOKIE, "Sid"))
	c := w.accept()
	w.data(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nCookie: Sid=1\r\n\r\n")
	for i := range 2 {
		o := w.dialled[len(w.dialled)-1]
		if o.dialling {
			w.connect(o)
		}
		w.data(o, okay)
		if got := c.take(); setCookie.MatchString(got) != (i == 0) {
			t.Errorf("response %d is %q", i, got)
		}
	}
}

func TestNobodyHealthy(t *testing.T) {
	e := anything()
	e.RefuseWhenUnhealthy = true
	w := newWorldOf(t, logged(wire(e), routetablev1.AccessLogFormat_ACCESS_LOG_FORMAT_JSON))
	m := w.live.Load().Endpoint("all").Pool.Members()[0]
	m.Health.SetHealthy(false)
	w.live.Load().Endpoint("all").Pool.Refresh()
	c := w.accept()
	w.data(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if got := c.take(); !strings.HasPrefix(got, "HTTP/1.1 503 ") || len(w.dialled) != 0 {
		t.Errorf("the client gets %q, %d backends are dialled", got, len(w.dialled))
	}
	if got := w.logs("/log"); !strings.Contains(got, `"error":"none_healthy"`) {
		t.Errorf("logged %s", got)
	}
	text := `
# HELP dataplane_requests_refused_total Requests that an endpoint took and that were given to no backend, by reason.
# TYPE dataplane_requests_refused_total counter
dataplane_requests_refused_total{endpoint="all",reason="no_address"} 0
dataplane_requests_refused_total{endpoint="all",reason="no_backend"} 0
dataplane_requests_refused_total{endpoint="all",reason="none_healthy"} 1
`
	if err := testutil.CollectAndCompare(w.set, strings.NewReader(text), "dataplane_requests_refused_total"); err != nil {
		t.Error(err)
	}
	m.Health.SetHealthy(true)
	w.live.Load().Endpoint("all").Pool.Refresh()
	w.data(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if len(w.dialled) != 1 {
		t.Error("a backend that is healthy again is not asked")
	}
}
