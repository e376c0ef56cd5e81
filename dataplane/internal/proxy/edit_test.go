package proxy_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

func field(name, value string) *routetablev1.Header {
	return &routetablev1.Header{Name: name, Value: value}
}

// edited is an endpoint for all requests that edits both ways.
func edited(request, response *routetablev1.HeaderEdits) *routetablev1.Endpoint {
	e := anything()
	e.RequestHeaders, e.ResponseHeaders = request, response
	return e
}

// answering is an endpoint for all requests that answers by itself.
func answering(a *routetablev1.Respond) *routetablev1.Endpoint {
	e := anything()
	e.Pool, e.Answer = nil, &routetablev1.Endpoint_Respond{Respond: a}
	return e
}

func redirecting(to string, status uint32) *routetablev1.Endpoint {
	e := anything()
	e.Pool, e.Answer = nil, &routetablev1.Endpoint_Redirect{Redirect: &routetablev1.Redirect{To: to, Status: status}}
	return e
}

func valid(t testing.TB, rt *routetablev1.RouteTable) *routetablev1.RouteTable {
	t.Helper()
	if err := routetable.Validate(rt); err != nil {
		t.Fatal(err)
	}
	return rt
}

func TestHeaderEdits(t *testing.T) {
	edits := &routetablev1.HeaderEdits{
		Set:    []*routetablev1.Header{field("X-Client", "${client}"), field("X-Set", "1")},
		Add:    []*routetablev1.Header{field("Cookie", "added"), field("X-Request", "${method} ${scheme}://${host}${path}?${query} ${requestId} ${endpoint} $$")},
		Remove: []string{"authorization", "x-debug"},
	}
	response := &routetablev1.HeaderEdits{
		Set:    []*routetablev1.Header{field("Server", ""), field("X-For", "${client}${path}")},
		Add:    []*routetablev1.Header{field("Set-Cookie", "mine")},
		Remove: []string{"x-powered-by"},
	}
	w := newWorldOf(t, valid(t, withID(wire(edited(edits, response)))))
	c := w.accept()
	for range 2 {
		w.data(c, "GET /a?b HTTP/1.1\r\nHost: shop.example:80\r\nX-CLIENT: evil\r\nx-client: evil\r\nCookie: theirs\r\nx-set: 2\r\nX-Setter: 3\r\n"+
			"Authorization: basic\r\nX-Debug: 1\r\nx-debug: 2\r\nX-Request-Id: id-1\r\n\r\n")
		o := w.dialled[0]
		if o.dialling {
			w.connect(o)
		}
		const sent = "GET /a?b HTTP/1.1\r\nHost: shop.example:80\r\nCookie: theirs\r\nX-Setter: 3\r\nVia: 1.1 reverseproxy\r\n" +
			"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: shop.example:80\r\nX-Request-Id: id-1\r\n" +
			"X-Client: 192.0.2.1\r\nX-Set: 1\r\nCookie: added\r\nX-Request: GET http://shop.example/a?b id-1 all $\r\n\r\n"
		if got := o.take(); got != sent {
			t.Errorf("sent\n%s\nwant\n%s", got, sent)
		}
		w.data(o, "HTTP/1.1 103 Early Hints\r\nX-Powered-By: php\r\n\r\n"+
			"HTTP/1.1 200 OK\r\nX-Powered-By: php\r\nServer: old\r\nSERVER: old\r\nset-cookie: theirs\r\nContent-Length: 2\r\n\r\nok")
		const answered = "HTTP/1.1 103 Early Hints\r\nX-Powered-By: php\r\n\r\n" +
			"HTTP/1.1 200 OK\r\nset-cookie: theirs\r\nContent-Length: 2\r\nVia: 1.1 reverseproxy\r\nX-Request-Id: id-1\r\n" +
			"Server: \r\nX-For: 192.0.2.1/a\r\nSet-Cookie: mine\r\n\r\nok"
		if got := undated(c.take()); got != answered {
			t.Errorf("answered\n%s\nwant\n%s", got, answered)
		}
	}
}

// What the proxy itself answers for an endpoint is edited as a backend's answer is.
func TestOwnAnswersAreEdited(t *testing.T) {
	e := edited(nil, &routetablev1.HeaderEdits{Set: []*routetablev1.Header{field("content-type", "text/x"), field("X-Path", "${path}")}})
	w := newWorldOf(t, valid(t, wire(e)))
	c := w.accept()
	w.data(c, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
	o := w.dialled[0]
	w.tick()
	o.closed = true
	w.engine.DialFailed(&o.conn, false)
	w.settle()
	const want = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 58\r\ncontent-type: text/x\r\nX-Path: /a\r\n\r\n" +
		"The backend could not be reached or gave no valid answer.\n"
	if got := undated(c.take()); got != want {
		t.Errorf("answered\n%s\nwant\n%s", got, want)
	}
	// One that no endpoint takes is not.
	w.data(c, "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n")
	if got := c.take(); strings.Contains(got, "X-Path") || !strings.HasPrefix(got, "HTTP/1.1 501 ") {
		t.Errorf("answered\n%s", got)
	}
}

func TestTheUpgradeIsEdited(t *testing.T) {
	e := edited(nil, &routetablev1.HeaderEdits{Set: []*routetablev1.Header{field("X-A", "${method}")}, Remove: []string{"x-b"}})
	w := newWorldOf(t, valid(t, wire(e)))
	c := w.accept()
	w.data(c, "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
	o := w.dialled[0]
	w.connect(o)
	w.data(o, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\nX-B: 1\r\n\r\nhello")
	if got, want := c.take(), "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\nVia: 1.1 reverseproxy\r\nX-A: GET\r\n\r\nhello"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// ${scheme} is what a trusted proxy says, and nobody else.
func TestScheme(t *testing.T) {
	for _, tt := range []struct {
		trusted []string
		fields  string
		want    string
	}{
		{nil, "X-Forwarded-Proto: https\r\n", "http"},
		{[]string{"192.0.2.0/24"}, "", "http"},
		{[]string{"192.0.2.0/24"}, "X-Forwarded-Proto: HTTPS\r\n", "https"},
		{[]string{"192.0.2.0/24"}, "X-Forwarded-Proto: http\r\n", "http"},
		{[]string{"192.0.2.0/24"}, "X-Forwarded-Proto: gopher\r\n", "http"},
		{[]string{"192.0.2.0/24"}, "X-Forwarded-Proto: https\r\nX-Forwarded-Proto: https\r\n", "http"},
	} {
		w := newWorldOf(t, valid(t, trusting(wire(redirecting("${scheme}://a.example/", 302)), tt.trusted...)))
		c := w.accept()
		w.data(c, "GET / HTTP/1.1\r\nHost: a\r\n"+tt.fields+"\r\n")
		if got := c.take(); !strings.Contains(got, "\r\nLocation: "+tt.want+"://a.example/\r\n") {
			t.Errorf("trusting %v, %q:\n%s", tt.trusted, tt.fields, got)
		}
	}
}

func TestRewrites(t *testing.T) {
	e := anything()
	e.Rewrite = &routetablev1.Rewrite{To: &routetablev1.Rewrite_Regex{Regex: &routetablev1.Regex{Match: "^/old/(.*)x$", Replace: "/new/../$1"}}}
	e.ResponseHeaders = &routetablev1.HeaderEdits{Set: []*routetablev1.Header{field("X-Path", "${path}")}}
	w := newWorldOf(t, valid(t, wire(e)))
	c := w.accept()
	w.data(c, "GET /old/ax?q HTTP/1.1\r\nHost: a\r\n\r\n")
	o := w.dialled[0]
	w.connect(o)
	if got := o.take(); !strings.HasPrefix(got, "GET /a?q HTTP/1.1\r\n") {
		t.Errorf("sent\n%s", got)
	}
	w.data(o, okay)
	if got := c.take(); !strings.Contains(got, "\r\nX-Path: /old/ax\r\n") {
		t.Errorf("answered\n%s", got)
	}
	// One that the rewrite takes above the root goes nowhere, and the next does.
	w.data(c, "GET /old/..x HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n")
	if got := c.take(); !strings.HasPrefix(got, "HTTP/1.1 400 Bad Request\r\n") || strings.Contains(got, "Connection: close") {
		t.Errorf("answered\n%s", got)
	}
	if got := o.take(); !strings.HasPrefix(got, "GET /b HTTP/1.1\r\n") {
		t.Errorf("sent\n%s", got)
	}
}

// A request that is sent again is edited and rewritten again, in the same way.
func TestRetriesAreEdited(t *testing.T) {
	e := edited(
		&routetablev1.HeaderEdits{Set: []*routetablev1.Header{field("X-Path", "${path} ${client}")}, Remove: []string{"x-a"}},
		&routetablev1.HeaderEdits{Set: []*routetablev1.Header{field("X-Path", "${path}")}})
	e.Pool = append(e.Pool, &routetablev1.Backend{Url: "http://other:80/base", Weight: 1})
	e.Rewrite = &routetablev1.Rewrite{To: &routetablev1.Rewrite_Regex{Regex: &routetablev1.Regex{Match: "^/a/", Replace: "/b/"}}}
	e.Retry = &routetablev1.Retry{Attempts: 2, On: []routetablev1.RetryOn{routetablev1.RetryOn_RETRY_ON_503}, BudgetPercent: 100}
	w := newWorldOf(t, valid(t, wire(e)))
	c := w.accept()
	w.data(c, "GET /%61/x?q HTTP/1.1\r\nHost: a\r\nx-path: evil\r\nX-A: 1\r\n\r\n")
	const rest = " HTTP/1.1\r\nHost: a\r\n" + "Via: 1.1 reverseproxy\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\nX-Path: /%61/x 192.0.2.1\r\n\r\n"
	for i, target := range []string{"/b/x?q", "/base/b/x?q"} {
		o := w.dialled[i]
		w.connect(o)
		if got, want := o.take(), "GET "+target+rest; got != want {
			t.Errorf("attempt %d sent\n%s\nwant\n%s", i+1, got, want)
		}
		if i == 0 {
			// Another request in between takes the place of what the engine was looking at.
			w.data(w.accept(), "GET /z HTTP/1.1\r\nHost: z\r\n\r\n")
			w.dialled = w.dialled[:1]
			w.data(o, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
			continue
		}
		w.data(o, okay)
	}
	if got := c.take(); !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") || !strings.Contains(got, "\r\nX-Path: /%61/x\r\n") {
		t.Errorf("answered\n%s", got)
	}
}

const itself = "GET /a?b HTTP/1.1\r\nHost: a.example:80\r\n\r\n"

func TestEndpointsThatAnswer(t *testing.T) {
	json := &routetablev1.Respond{Status: 200, Body: []byte(`{"a":1}`), Headers: []*routetablev1.Header{field("Content-Type", "application/json"), field("X-Host", "${host}")}}
	tests := []struct {
		name     string
		endpoint *routetablev1.Endpoint
		send     string
		want     string
		closed   bool
	}{
		{"redirect", redirecting("https://${host}${path}?${query}", 308), itself, "HTTP/1.1 308 Permanent Redirect\r\nContent-Length: 0\r\nLocation: https://a.example/a?b\r\n\r\n", false},
		{
			"redirect, nothing injected", redirecting("${path}?${query}", 302), "GET //evil.example/%0d%0aSet-Cookie:x?\"<> HTTP/1.1\r\nHost: a\r\n\r\n",
			"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: /evil.example/%0d%0aSet-Cookie:x?%22%3C%3E\r\n\r\n", false,
		},
		{"redirect without a path", redirecting("http://b${path}", 301), "GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 301 Moved Permanently\r\nContent-Length: 0\r\nLocation: http://b/\r\n\r\n", false},
		{
			"redirect without a host", redirecting("http://${host}/", 301), "GET / HTTP/1.0\r\n\r\n",
			"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 31\r\nConnection: close\r\n\r\nThe request is not valid HTTP.\n", true,
		},
		{"respond", answering(json), itself, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nContent-Type: application/json\r\nX-Host: a.example\r\n\r\n{\"a\":1}", false},
		{"HEAD", answering(json), "HEAD / HTTP/1.1\r\nHost: b\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nContent-Type: application/json\r\nX-Host: b\r\n\r\n", false},
		{"204", answering(&routetablev1.Respond{Status: 204}), itself, "HTTP/1.1 204 No Content\r\n\r\n", false},
		{"304", answering(&routetablev1.Respond{Status: 304, Headers: []*routetablev1.Header{field("ETag", `"1"`)}}), itself, "HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\n\r\n", false},
		{"205", answering(&routetablev1.Respond{Status: 205}), itself, "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", false},
		{"unknown status", answering(&routetablev1.Respond{Status: 599, Body: []byte("x")}), itself, "HTTP/1.1 599 \r\nContent-Length: 1\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nx", false},
		{"HTTP/1.0", answering(&routetablev1.Respond{Status: 200}), "GET / HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", true},
		{"with a body that is here", answering(&routetablev1.Respond{Status: 200}), "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false},
		{"with a body that is not", answering(&routetablev1.Respond{Status: 200}), "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorldOf(t, valid(t, wire(tt.endpoint)))
			c := w.accept()
			w.data(c, tt.send)
			if got := undated(c.take()); got != tt.want {
				t.Errorf("answered\n%q\nwant\n%q", got, tt.want)
			}
			if (c.shut || c.closed) != tt.closed {
				t.Errorf("ended: %t, want %t", c.shut || c.closed, tt.closed)
			}
			if len(w.dialled) > 0 {
				t.Error("a backend was dialled")
			}
			// 5xx on purpose are no failures.
			if requests, failures := w.totals(); requests != 1 || failures != 0 {
				t.Errorf("%d requests, %d failures", requests, failures)
			}
		})
	}
}

// The limits of an endpoint that answers count, and their answers are edited.
func TestAnswersAreLimited(t *testing.T) {
	e := answering(&routetablev1.Respond{Status: 200})
	e.ResponseHeaders = &routetablev1.HeaderEdits{Set: []*routetablev1.Header{field("X-A", "1")}, Remove: []string{"retry-after"}}
	e.RateLimit = &routetablev1.RateLimit{Requests: 1, Per: durationpb.New(time.Hour), Burst: 1}
	w := newWorldOf(t, valid(t, wire(e)))
	c := w.accept()
	for _, want := range []string{"HTTP/1.1 200 OK\r\n", "HTTP/1.1 429 Too Many Requests\r\n"} {
		w.data(c, get)
		if got := c.take(); !strings.HasPrefix(got, want) || !strings.Contains(got, "\r\nX-A: 1\r\n") || strings.Contains(got, "Retry-After") {
			t.Errorf("answered\n%s\nwant %s", got, want)
		}
	}
}

// Pipelined requests to endpoints that answer and to others are answered in order.
func TestAnswersInOrder(t *testing.T) {
	fixed := answering(&routetablev1.Respond{Status: 200, Body: []byte("fixed")})
	fixed.Name, fixed.Path = "fixed", &routetablev1.Endpoint_Exact{Exact: "/fixed"}
	w := newWorldOf(t, valid(t, wire(anything(), fixed)))
	c := w.accept()
	const fixedRequest = "GET /fixed HTTP/1.1\r\nHost: a\r\n\r\n"
	w.data(c, fixedRequest+get+fixedRequest)
	w.connect(w.dialled[0])
	w.data(w.dialled[0], okay)
	const answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nfixed"
	if got, want := undated(c.take()), answer+okaySent+answer; got != want {
		t.Errorf("answered\n%s\nwant\n%s", got, want)
	}
}

// No request makes a line of its own in what the backend or the client gets,
// whatever is put into header values.
func FuzzValuesStayInTheirLine(f *testing.F) {
	f.Add("GET /a?b HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Proto: https\r\nX-Request-Id: a\r\n\r\n")
	f.Add("GET /%0d%0aX:y?\"\\ HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\rX: y\r\n\r\n")
	f.Add("GET http://a?b HTTP/1.1\r\nHost: b:\r\n\r\n")
	f.Add("\x80 / HTTP/1.0\r\n\r\n")
	const all = "${client}|${endpoint}|${host}|${method}|${path}|${query}|${requestId}|${scheme}"
	edits := &routetablev1.HeaderEdits{Set: []*routetablev1.Header{field("X-All", all)}}
	rt := trusting(withID(wire(edited(edits, edits))), "192.0.2.0/24")
	f.Fuzz(func(t *testing.T, request string) {
		w := newWorldOf(t, rt)
		c := w.accept()
		w.data(c, request)
		if len(w.dialled) == 0 {
			return
		}
		o := w.dialled[0]
		w.connect(o)
		head, _, _ := strings.Cut(o.take(), "\r\n\r\n")
		checkLine(t, head)
		w.data(o, okay)
		head, _, _ = strings.Cut(c.take(), "\r\n\r\n")
		checkLine(t, head)
	})
}

// checkLine checks that a head has one X-All line with all values in it.
func checkLine(t *testing.T, head string) {
	t.Helper()
	n := 0
	for line := range strings.SplitSeq(head, "\r\n") {
		value, ok := strings.CutPrefix(line, "X-All: ")
		if !ok {
			continue
		}
		if n++; strings.ContainsAny(value, "\r\n\x00") || strings.Count(value, "|") < 7 {
			t.Errorf("value %q", value)
		}
	}
	if n != 1 {
		t.Errorf("%d lines in %q", n, head)
	}
}
