package proxy_test

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// withID asks for request ids.
func withID(rt *routetablev1.RouteTable) *routetablev1.RouteTable {
	rt.RequestId = true
	return rt
}

// logged asks for an access log.
func logged(rt *routetablev1.RouteTable, f routetablev1.AccessLogFormat) *routetablev1.RouteTable {
	rt.AccessLog = &routetablev1.AccessLog{Path: "/log", Format: f, SamplePerMillion: routetable.SamplePerMillion}
	return rt
}

// newLoggedWorld is a world in which the wall clock goes on.
func newLoggedWorld(t testing.TB, rt *routetablev1.RouteTable) *world {
	w := newWorldOf(t, rt)
	w.wall = func() time.Duration { return w.now - time.Second }
	return w
}

// jsonLogged is a table with ids and all there is to be known in the log.
func jsonLogged() *routetablev1.RouteTable {
	return withID(logged(wire(anything()), routetablev1.AccessLogFormat_ACCESS_LOG_FORMAT_JSON))
}

// logs returns what has been logged for a path.
func (w *world) logs(path string) (text string) {
	w.Helper()
	for {
		p, lines := w.log.Shard(0).Next()
		if lines == nil {
			return text
		}
		if p != path {
			w.Errorf("logged for %q: %q", p, lines)
		}
		text += string(lines)
		w.log.Shard(0).Done(len(lines))
	}
}

// logLine is a line of the JSON format.
type logLine struct {
	Time, Client, Method, Host, Target, Protocol string
	Status                                       int
	BytesIn, BytesOut                            int
	DurationSeconds                              float64
	BackendSeconds                               *float64
	Endpoint, Backend                            string
	Attempts                                     int
	ByProxy                                      bool
	Error, RequestID, Version                    string
	Referer, UserAgent                           string
}

// wantLine compares the one line that was logged.
func (w *world) wantLine(want logLine) {
	w.Helper()
	text := w.logs("/log")
	var got logLine
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		w.Fatalf("%v in %q", err, text)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		w.Errorf("line (-want +got):\n%s", diff)
	}
}

func seconds(s float64) *float64 { return &s }

var (
	newID    = regexp.MustCompile(`X-Request-Id: ([0-9a-f]{32})\r\n`)
	anyID    = regexp.MustCompile(`(?i)x.request.id: ([^\r]*)\r\n`)
	interims = "HTTP/1.1 103 Early Hints\r\nX-Request-Id: backend\r\n\r\n"
)

// ids returns the values of all X-Request-Id lines.
func ids(s string) (values []string) {
	for _, match := range anyID.FindAllStringSubmatch(s, -1) {
		values = append(values, match[1])
	}
	return values
}

func TestRequestIDIsKept(t *testing.T) {
	for _, id := range []string{"abc", "0-/:;<=>?@[]^_`{|}~!\"#$%&'()*+,.\\", strings.Repeat("x", 128)} {
		w := newWorldOf(t, jsonLogged())
		c := w.accept()
		w.data(c, "GET / HTTP/1.1\r\nHost: a\r\nX-REQUEST-ID:  "+id+" \r\nB: c\r\n\r\n")
		w.connect(w.dialled[0])
		if got := w.dialled[0].take(); !cmp.Equal(ids(got), []string{id}) || !strings.Contains(got, "\r\nX-Request-Id: "+id+"\r\n") {
			t.Errorf("%s: the backend gets %q", id, got)
		}
		w.data(w.dialled[0], interims+"HTTP/1.1 200 OK\r\nx-request-id: backend\r\nContent-Length: 0\r\n\r\n")
		interim, final, _ := strings.Cut(c.take(), "\r\n\r\n")
		if !cmp.Equal(ids(interim+"\r\n"), []string{"backend"}) || !cmp.Equal(ids(final), []string{id}) {
			t.Errorf("%s: the client gets %q and %q", id, interim, final)
		}
		var line logLine
		if err := json.Unmarshal([]byte(w.logs("/log")), &line); err != nil || line.RequestID != id {
			t.Errorf("%s: logged %q, %v", id, line.RequestID, err)
		}
	}
}

func TestRequestIDIsMade(t *testing.T) {
	seen := map[string]bool{}
	for _, fields := range []string{
		"", "X-Request-Id:\r\n", "X-Request-Id: a b\r\n", "X-Request-Id: a\tb\r\n", "X-Request-Id: \xff\r\n", "X-Request-Id: gr\u00fcn\r\n",
		"X-Request-Id: a\r\nX-Request-Id: a\r\n", "X-Request-Id: a\r\nX-Request-Id: \r\n", "X-Request-Id: " + strings.Repeat("x", 129) + "\r\n",
		"X-Request-Id: a\r\nConnection: x-request-id\r\n", "X_Request_Id: a\r\n", "X-Request_Id: a\r\n",
	} {
		w := newWorldOf(t, jsonLogged())
		c := w.accept()
		w.data(c, "GET / HTTP/1.1\r\nHost: a\r\n"+fields+"\r\n")
		w.connect(w.dialled[0])
		got := w.dialled[0].take()
		match := newID.FindStringSubmatch(got)
		if match == nil || len(ids(got)) != 1 || seen[match[1]] {
			t.Errorf("%q: the backend gets %q", fields, got)
			continue
		}
		seen[match[1]] = true
		w.data(w.dialled[0], okay)
		if got := c.take(); !cmp.Equal(ids(got), match[1:]) {
			t.Errorf("%q: the client gets %q", fields, got)
		}
	}
}

// Without requestId it is a field like any other.
func TestNoRequestID(t *testing.T) {
	w := newWorldOf(t, logged(wire(anything()), routetablev1.AccessLogFormat_ACCESS_LOG_FORMAT_JSON))
	c := w.accept()
	w.data(c, "GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: a\r\nX-Request-Id: b c\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
	o := w.dialled[0]
	w.connect(o)
	if got := ids(o.take()); !cmp.Equal(got, []string{"a", "b c"}) {
		t.Errorf("the backend gets %q", got)
	}
	w.data(o, "HTTP/1.1 200 OK\r\nX-Request-Id: backend\r\nContent-Length: 0\r\n\r\n")
	if got := ids(c.take()); !cmp.Equal(got, []string{"backend"}) {
		t.Errorf("the client gets %q", got)
	}
	if got := ids(o.take()); got != nil {
		t.Errorf("the backend gets %q, want none", got)
	}
	var line logLine
	if err := json.Unmarshal([]byte(w.logs("/log")), &line); err != nil || line.RequestID != "" {
		t.Errorf("logged %q, %v", line.RequestID, err)
	}
}

// Whoever answers, the answer has the id.
func TestEveryAnswerHasTheRequestID(t *testing.T) {
	exact := anything()
	exact.Path = &routetablev1.Endpoint_Exact{Exact: "/x"}
	upgrade := "GET /x HTTP/1.1\r\nHost: a\r\nX-Request-Id: id\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
	for _, tt := range []struct{ name, request, response, status string }{
		{"404", "GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: id\r\n\r\n", "", "404"},
		{"metrics", "GET /metrics HTTP/1.1\r\nHost: a\r\nX-Request-Id: id\r\n\r\n", "", "200"},
		{"not implemented", "CONNECT a:1 HTTP/1.1\r\nHost: a\r\nX-Request-Id: id\r\n\r\n", "", "501"},
		{"502", "GET /x HTTP/1.1\r\nHost: a\r\nX-Request-Id: id\r\n\r\n", "nonsense\r\n\r\n", "502"},
		{"101", upgrade, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\nX-Request-Id: backend\r\n\r\n", "101"},
		{"not HTTP", "\x00\r\n\r\n", "", "400"},
		{"bad body", "POST /x HTTP/1.1\r\nHost: a\r\nX-Request-Id: id\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n", "", "400"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorldOf(t, withID(wire(exact)))
			c := w.accept()
			w.data(c, tt.request)
			if tt.response != "" {
				w.connect(w.dialled[0])
				w.data(w.dialled[0], tt.response)
			}
			w.comeBack()
			got := c.take()
			if want := []string{"id"}; tt.name != "not HTTP" && !cmp.Equal(ids(got), want) || len(ids(got)) != 1 || !strings.HasPrefix(got, "HTTP/1.1 "+tt.status) {
				t.Errorf("the client gets %q", got)
			}
		})
	}
}

// A request that is sent a second time is still the same one.
func TestRetryKeepsTheRequestID(t *testing.T) {
	w := newWorldOf(t, withID(wire(anything())))
	c := w.accept()
	w.data(c, get)
	o := w.dialled[0]
	w.connect(o)
	w.data(o, okay)
	o.take()
	w.data(c, get)
	first := o.take()
	w.eof(o, nil)
	w.connect(w.dialled[1])
	if second := w.dialled[1].take(); second != first || len(ids(first)) != 1 {
		t.Errorf("first %q, then %q", first, second)
	}
}

func TestLogLine(t *testing.T) {
	rt := jsonLogged()
	version := routetable.Version(rt)
	const at = "1994-11-06T08:49:37.000Z" // of the clock, when it is first read
	request := "POST /a%20b?x=%22 HTTP/1.1\r\nHost: Shop.example:80\r\nX-Request-Id: id\r\nReferer: http://r/\"\r\nUser-Agent: curl \xff\r\nContent-Length: 5\r\n\r\n"
	sent := logLine{
		Time: at, Client: "192.0.2.1", Method: "POST", Host: "Shop.example:80", Target: "/a%20b?x=%22", Protocol: "HTTP/1.1",
		Endpoint: "all", Backend: "http://origin:80", Attempts: 1, RequestID: "id", Version: version, Referer: "http://r/\"", UserAgent: "curl \ufffd",
		BytesIn: len(request) + 5,
	}
	// with returns sent, changed.
	with := func(change func(*logLine)) logLine {
		l := sent
		change(&l)
		return l
	}
	start := func(t *testing.T) (*world, *end, *end) {
		w := newLoggedWorld(t, rt)
		c := w.accept()
		w.data(c, request+"ab")
		w.now += 250 * time.Millisecond
		w.data(c, "cde")
		return w, c, w.dialled[0]
	}
	t.Run("answered", func(t *testing.T) {
		w, c, o := start(t)
		w.connect(o)
		w.now += 500 * time.Millisecond
		w.data(o, "HTTP/1.1 201 Created\r\nContent-Length: 4\r\n\r\nok")
		w.now += 1500 * time.Microsecond
		w.data(o, "ay")
		w.wantLine(with(func(l *logLine) {
			l.Status, l.BytesOut, l.DurationSeconds, l.BackendSeconds = 201, len(c.take()), 0.7515, seconds(0.75)
		}))
	})
	t.Run("refused by the backend", func(t *testing.T) {
		w, c, o := start(t)
		w.engine.DialFailed(&o.conn, false)
		w.wantLine(with(func(l *logLine) {
			l.Status, l.BytesOut, l.DurationSeconds, l.ByProxy, l.Error = 502, len(c.take()), 0.25, true, "connect_failed"
		}))
	})
	t.Run("broken off by the backend", func(t *testing.T) {
		w, c, o := start(t)
		w.connect(o)
		w.data(o, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok")
		w.eof(o, errReset)
		w.wantLine(with(func(l *logLine) {
			l.Status, l.BytesOut, l.DurationSeconds, l.BackendSeconds, l.Error = 200, len(c.take()), 0.25, seconds(0.25), "reset"
		}))
	})
	t.Run("left by the client", func(t *testing.T) {
		w, c, o := start(t)
		w.connect(o)
		w.eof(c, errReset)
		w.wantLine(with(func(l *logLine) { l.Status, l.DurationSeconds = 499, 0.25 }))
	})
	t.Run("a tunnel", func(t *testing.T) {
		w := newLoggedWorld(t, rt)
		c := w.accept()
		in := "GET /ws HTTP/1.1\r\nHost: a\r\nX-Request-Id: id\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
		w.data(c, in)
		o := w.dialled[0]
		w.connect(o)
		w.data(o, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
		if text := w.logs("/log"); text != "" {
			t.Errorf("logged before its end: %s", text)
		}
		w.data(c, "12345")
		w.now += time.Minute
		w.data(o, "123")
		w.eof(c, nil)
		w.eof(o, nil)
		w.wantLine(logLine{
			Time: at, Client: "192.0.2.1", Method: "GET", Host: "a", Target: "/ws", Protocol: "HTTP/1.1", Status: 101, BytesIn: len(in) + 5, BytesOut: len(c.take()),
			DurationSeconds: 60, BackendSeconds: seconds(0), Endpoint: "all", Backend: "http://origin:80", Attempts: 1, RequestID: "id", Version: version,
		})
	})
	t.Run("not HTTP", func(t *testing.T) {
		w := newLoggedWorld(t, rt)
		c := w.accept()
		w.data(c, "GET / HTTP/1.1\r\nHost: a\nUser-Agent: x\r\n\r\n")
		out := c.take()
		w.wantLine(logLine{
			Time: at, Client: "192.0.2.1", Status: 400, BytesOut: len(out), Endpoint: "none", ByProxy: true, RequestID: newID.FindStringSubmatch(out)[1], Version: version,
		})
	})
	t.Run("absolute form, HTTP/1.0", func(t *testing.T) {
		w := newLoggedWorld(t, rt)
		c := w.accept()
		in := "OPTIONS http://B.example?q HTTP/1.0\r\nX-Request-Id: id\r\n\r\n"
		w.data(c, in)
		w.connect(w.dialled[0])
		w.data(w.dialled[0], "HTTP/1.1 204 No Content\r\n\r\n")
		w.wantLine(logLine{
			Time: at, Client: "192.0.2.1", Method: "OPTIONS", Host: "B.example", Target: "http://B.example?q", Protocol: "HTTP/1.0", Status: 204, BytesIn: len(in), BytesOut: len(c.take()),
			BackendSeconds: seconds(0), Endpoint: "all", Backend: "http://origin:80", Attempts: 1, RequestID: "id", Version: version,
		})
	})
}

// The size in the common formats is that of the body.
func TestLogCommon(t *testing.T) {
	w := newLoggedWorld(t, logged(wire(anything()), routetablev1.AccessLogFormat_ACCESS_LOG_FORMAT_COMMON))
	c := w.accept()
	w.data(c, get+get+"HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n"+"GET /../ HTTP/1.1\r\nHost: a\r\n\r\n")
	w.connect(w.dialled[0])
	w.data(w.dialled[0], interims+okay)
	w.connect(w.dialled[1])
	w.data(w.dialled[1], "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwxyz\r\n0\r\n\r\n")
	w.data(w.dialled[0], "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n")
	const start = "192.0.2.1 - - [06/Nov/1994:08:49:37 +0000] "
	want := start + "\"GET /x HTTP/1.1\" 200 2\n" + start + "\"GET /x HTTP/1.1\" 200 14\n" +
		start + "\"HEAD /x HTTP/1.1\" 200 0\n" + start + "\"GET /../ HTTP/1.1\" 400 31\n"
	if diff := cmp.Diff(want, w.logs("/log")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLogSample(t *testing.T) {
	const requests = 20_000
	for _, perMillion := range []uint32{1, 100_000, 500_000, 999_999} {
		rt := logged(wire(), routetablev1.AccessLogFormat_ACCESS_LOG_FORMAT_COMMON)
		rt.AccessLog.SamplePerMillion = perMillion
		w := newLoggedWorld(t, rt)
		c := w.accept()
		for range requests {
			w.data(c, get)
			c.take()
		}
		got := float64(strings.Count(w.logs("/log"), "\n"))
		want := requests * float64(perMillion) / 1e6
		// Ten standard deviations of the worst case.
		if got < want-700 || got > want+700 {
			t.Errorf("%d of a million: %v lines of %d", perMillion, got, requests)
		}
	}
}

// The table in force at the end of a request says where its line goes.
func TestLogFollowsTheTable(t *testing.T) {
	w := newLoggedWorld(t, jsonLogged())
	begin := func() (*end, *end) {
		c := w.accept()
		w.data(c, get)
		o := w.dialled[len(w.dialled)-1]
		w.connect(o)
		return c, o
	}
	c, o := begin()
	moved := logged(wire(anything()), routetablev1.AccessLogFormat_ACCESS_LOG_FORMAT_COMMON)
	moved.AccessLog.Path = "/moved"
	w.apply(moved)
	w.data(o, okay)
	if got, want := w.logs("/moved"), `192.0.2.1 - - [06/Nov/1994:08:49:37 +0000] "GET /x HTTP/1.1" 200 2`+"\n"; got != want {
		t.Errorf("logged %q, want %q", got, want)
	}
	if got := ids(c.take()); len(got) != 1 {
		t.Errorf("ids %q: it had one when it began", got)
	}
	w.data(c, get)
	w.apply(wire(anything()))
	w.data(o, okay)
	if got := w.logs(""); got != "" {
		t.Errorf("logged although there is no log any more: %q", got)
	}
	w.data(c, get) // begins unlogged
	w.apply(jsonLogged())
	w.data(o, okay)
	if got := w.logs(""); got != "" {
		t.Errorf("logged although there was no log when it began: %q", got)
	}
}

// The time of a line is that of the request's head, whenever the clock was read.
func TestLogTime(t *testing.T) {
	w := newLoggedWorld(t, logged(wire(), routetablev1.AccessLogFormat_ACCESS_LOG_FORMAT_JSON))
	c := w.accept()
	var got []string
	for range 5 {
		w.data(c, get)
		var l logLine
		if err := json.Unmarshal([]byte(w.logs("/log")), &l); err != nil {
			t.Fatal(err)
		}
		got = append(got, l.Time)
		w.now += 300 * time.Millisecond
	}
	want := []string{"1994-11-06T08:49:37.000Z", "1994-11-06T08:49:37.300Z", "1994-11-06T08:49:37.600Z", "1994-11-06T08:49:37.900Z", "1994-11-06T08:49:38.200Z"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
