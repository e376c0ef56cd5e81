package proxy_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

const (
	busy     = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy"
	busySent = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\nVia: 1.1 reverseproxy\r\n\r\nbusy"
	put      = "PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde"
	putSent  = "PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n" + added + "abcde"
	post     = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde"
	postSent = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n" + added + "abcde"
)

// retrying is an endpoint with as many backends, called b0, b1 and so on, that
// sends requests again.
func retrying(backends int, change func(*routetablev1.Retry)) *routetablev1.Endpoint {
	e := anything()
	e.Pool = nil
	for i := range backends {
		e.Pool = append(e.Pool, &routetablev1.Backend{Url: fmt.Sprintf("http://b%d:80", i), Weight: 1})
	}
	e.Retry = &routetablev1.Retry{Attempts: 3, BudgetPercent: 100}
	for on := range routetablev1.RetryOn_name {
		if on != 0 {
			e.Retry.On = append(e.Retry.On, routetablev1.RetryOn(len(e.Retry.On)+1))
		}
	}
	if change != nil {
		change(e.Retry)
	}
	return e
}

// retryWorld has the endpoint and a log.
func retryWorld(t testing.TB, e *routetablev1.Endpoint) *world {
	return newWorldOf(t, logged(wire(e), routetablev1.AccessLogFormat_ACCESS_LOG_FORMAT_JSON))
}

// failDial lets a dial fail.
func (w *world) failDial(o *end, timeout bool) {
	if o.closed {
		return
	}
	o.closed, o.queue = true, nil
	w.tick()
	w.engine.DialFailed(&o.conn, timeout)
	w.settle()
}

// newest is the connection that was dialled last.
func (w *world) newest() *end { return w.dialled[len(w.dialled)-1] }

// retries returns what has been counted about sending again.
func (w *world) retries() (done, skipped string) {
	return fmt.Sprint(w.counts("dataplane_retries_total", "reason")), fmt.Sprint(w.counts("dataplane_retries_skipped_total", "why"))
}

// inFlight returns the requests that nobody has counted out.
func (w *world) inFlight() (n int64) {
	for _, v := range w.counts("dataplane_requests_in_flight", "endpoint") {
		n += int64(v)
	}
	for addr := range w.backends.Addresses() {
		n += w.backends.State(addr).InFlight()
	}
	return n
}

// line returns the one line that was logged.
func (w *world) line() (l logLine) {
	w.Helper()
	text := w.logs("/log")
	if err := json.Unmarshal([]byte(text), &l); err != nil {
		w.Fatalf("%v in %q", err, text)
	}
	return l
}

// TestRetry: each failure once, and then a backend that answers.
func TestRetry(t *testing.T) {
	half := busy[:len(busy)-2]
	for _, tt := range []struct {
		name string
		// What the first backend does; it is connected unless dial is set.
		fail   func(w *world, c, o *end)
		dial   bool
		reason string // of the backend's error, if it is one
		retry  string
		reused bool // the first connection stays open
	}{
		{name: "connect failure", dial: true, fail: func(w *world, _, o *end) { w.failDial(o, false) }, reason: "connect_failed", retry: "connect_failure"},
		{name: "connect timeout", dial: true, fail: func(w *world, _, o *end) { w.failDial(o, true) }, reason: "connect_timeout", retry: "connect_failure"},
		{name: "reset", fail: func(w *world, _, o *end) { w.eof(o, errReset) }, reason: "reset", retry: "reset"},
		{name: "closed", fail: func(w *world, _, o *end) { w.eof(o, nil) }, reason: "reset", retry: "reset"},
		{name: "reset in its head", fail: func(w *world, _, o *end) { w.data(o, okay[:20]); w.eof(o, errReset) }, reason: "reset", retry: "reset"},
		{name: "response timeout", fail: func(w *world, c, _ *end) { w.pass(30*time.Second, c) }, reason: "response_timeout", retry: "timeout"},
		{name: "502", fail: func(w *world, _, o *end) { w.data(o, strings.Replace(busy, "503", "502", 1)) }, retry: "502", reused: true},
		{name: "503", fail: func(w *world, _, o *end) { w.data(o, busy) }, retry: "503", reused: true},
		{name: "504", fail: func(w *world, _, o *end) { w.data(o, strings.Replace(busy, "503", "504", 1)) }, retry: "504", reused: true},
		{name: "503 without the end of its body", fail: func(w *world, _, o *end) { w.data(o, half) }, retry: "503"},
		{name: "503 and more behind it", fail: func(w *world, _, o *end) { w.data(o, busy+"more") }, retry: "503"},
		{name: "503 and close", fail: func(w *world, _, o *end) { w.data(o, strings.Replace(busy, "\r\n", "\r\nConnection: close\r\n", 1)) }, retry: "503"},
		{name: "503 until close", fail: func(w *world, _, o *end) { w.data(o, "HTTP/1.1 503 S\r\n\r\nbusy") }, retry: "503"},
		{name: "503 in chunks", fail: func(w *world, _, o *end) {
			w.data(o, "HTTP/1.1 503 S\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n")
		}, retry: "503", reused: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := retryWorld(t, retrying(2, nil))
			c := w.accept()
			w.data(c, get)
			o := w.dialled[0]
			if !tt.dial {
				w.connect(o)
			}
			tt.fail(w, c, o)
			if len(w.dialled) != 2 || w.newest().addr != "b1:80" {
				t.Fatalf("%d dials, the last to %s", len(w.dialled), w.newest().addr)
			}
			if o.closed == tt.reused {
				t.Errorf("the first connection is closed: %t", o.closed)
			}
			w.connect(w.newest())
			if got := w.newest().take(); got != getSent {
				t.Errorf("sent %q", got)
			}
			w.data(w.newest(), okay)
			if got := undated(c.take()); got != okaySent {
				t.Errorf("the client got %q", got)
			}
			want := map[string]float64{}
			if tt.reason != "" {
				want[tt.reason] = 1
			}
			if backends, clients := w.errors(); backends != fmt.Sprint(want) || clients != "map[]" {
				t.Errorf("errors of backends %s, of clients %s", backends, clients)
			}
			if done, skipped := w.retries(); done != "map["+tt.retry+":1]" || skipped != "map[]" {
				t.Errorf("retries %s, skipped %s", done, skipped)
			}
			if n := w.counts("dataplane_requests_total", "code"); !cmp.Equal(n, map[string]float64{"200": 1}) || w.inFlight() != 0 {
				t.Errorf("requests %v, %d in flight", n, w.inFlight())
			}
			if l := w.line(); l.Attempts != 2 || l.Backend != "http://b1:80" || l.Error != "" || l.Status != 200 || l.ByProxy {
				t.Errorf("logged %+v", l)
			}
		})
	}
}

// TestRetryHeadForEachBackend: what a backend is sent is made for it, also the
// second time.
func TestRetryHeadForEachBackend(t *testing.T) {
	e := retrying(2, nil)
	e.ReplaceHost = true
	e.Path = &routetablev1.Endpoint_Prefix{Prefix: "/x"}
	e.Pool[0].Url, e.Pool[1].Url = "http://b0:80/first?p=1", "http://b1:80/second"
	w := newWorldOf(t, withID(wire(e)))
	c := w.accept()
	w.data(c, "PUT /x/../x/y%20z?q HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde")
	w.connect(w.dialled[0])
	first := w.dialled[0].take()
	w.eof(w.dialled[0], errReset)
	w.connect(w.dialled[1])
	second := w.dialled[1].take()
	if !strings.HasPrefix(first, "PUT /first/y%20z?p=1&q HTTP/1.1\r\nHost: b0:80\r\n") {
		t.Errorf("first %q", first)
	}
	if want := strings.Replace(strings.Replace(first, "/first/y%20z?p=1&q", "/second/y%20z?q", 1), "b0:80", "b1:80", 1); second != want {
		t.Errorf("second %q\nwant   %q", second, want)
	}
}

// TestRetryAttempts: there are no more than allowed, and the client gets the last
// answer, whoever made it.
func TestRetryAttempts(t *testing.T) {
	t.Run("resets", func(t *testing.T) {
		w := retryWorld(t, retrying(5, nil))
		c := w.accept()
		w.data(c, get)
		for i := 0; i < len(w.dialled); i++ {
			w.connect(w.dialled[i])
			w.eof(w.dialled[i], errReset)
		}
		if got := c.take(); len(w.dialled) != 3 || !strings.HasPrefix(got, "HTTP/1.1 502 ") {
			t.Errorf("%d attempts, then %q", len(w.dialled), got)
		}
		if done, skipped := w.retries(); done != "map[reset:2]" || skipped != "map[attempts:1]" {
			t.Errorf("retries %s, skipped %s", done, skipped)
		}
		if backends, _ := w.errors(); backends != "map[reset:3]" {
			t.Errorf("errors %s", backends)
		}
		if l := w.line(); l.Attempts != 3 || l.Error != "reset" || l.Backend != "http://b2:80" || w.inFlight() != 0 {
			t.Errorf("logged %+v, %d in flight", l, w.inFlight())
		}
	})
	t.Run("answers", func(t *testing.T) {
		w := retryWorld(t, retrying(5, nil))
		c := w.accept()
		w.data(c, get+get)
		for i := range 3 {
			w.connect(w.dialled[i])
			w.data(w.dialled[i], busy)
		}
		if got := undated(c.take()); got != busySent {
			t.Errorf("got %q", got)
		}
		if n := w.counts("dataplane_backend_requests_total", "code"); !cmp.Equal(n, map[string]float64{"503": 3}) {
			t.Errorf("answers of backends: %v", n)
		}
		w.connect(w.newest()) // for the next request
		w.data(w.newest(), okay)
		if got := undated(c.take()); got != okaySent {
			t.Errorf("got %q", got)
		}
	})
}

// TestRetryOnlyWhatIsListed: other failures are the client's.
func TestRetryOnlyWhatIsListed(t *testing.T) {
	w := retryWorld(t, retrying(2, func(r *routetablev1.Retry) { r.On = r.On[:1] }))
	for _, fail := range []func(o *end){
		func(o *end) { w.eof(o, errReset) },
		func(o *end) { w.data(o, busy) },
		func(o *end) { w.data(o, "nonsense\r\n\r\n") },
	} {
		c := w.accept()
		w.data(c, get)
		o := w.newest()
		w.connect(o)
		dials := len(w.dialled)
		fail(o)
		if got := c.take(); !strings.HasPrefix(got, "HTTP/1.1 50") || len(w.dialled) != dials {
			t.Errorf("got %q after %d dials", got, len(w.dialled))
		}
		w.eof(o, nil)
	}
	if done, skipped := w.retries(); done != "map[]" || skipped != "map[]" {
		t.Errorf("retries %s, skipped %s", done, skipped)
	}
}

// TestRetryOnlyWhatIsSafe: what may have had an effect is not repeated, nor what
// is not there any more, nor what the client has had something of.
func TestRetryOnlyWhatIsSafe(t *testing.T) {
	large := strings.Repeat("x", 65<<10)
	reset := func(w *world, o *end) { w.connect(o); w.eof(o, errReset) }
	refuse := func(w *world, o *end) { w.failDial(o, false) }
	for _, tt := range []struct {
		name   string
		client []string
		fail   func(w *world, o *end)
		status string
		why    string // "": it is sent again
		sent   string // all that the second backend gets
	}{
		{name: "POST, reset", client: []string{post}, fail: reset, status: "502", why: "method"},
		{name: "POST, 503", client: []string{post}, fail: func(w *world, o *end) { w.connect(o); w.data(o, busy) }, status: "503", why: "method"},
		{name: "POST, timeout", client: []string{post}, fail: func(w *world, o *end) { w.connect(o); w.pass(30*time.Second, w.client) }, status: "504", why: "method"},
		{name: "POST, nobody has got anything", client: []string{post}, fail: refuse, sent: postSent},
		{name: "unknown method", client: []string{"BREW /x HTTP/1.1\r\nHost: a\r\n\r\n"}, fail: reset, status: "502", why: "method"},
		{name: "PUT, reset", client: []string{put}, fail: reset, sent: putSent},
		{name: "PUT in pieces, reset", client: []string{put[:50], put[50:]}, fail: reset, sent: putSent},
		{name: "DELETE, reset", client: []string{strings.Replace(get, "GET", "DELETE", 1)}, fail: reset, sent: strings.Replace(getSent, "GET", "DELETE", 1)},
		{name: "half a PUT, reset", client: []string{put[:len(put)-2]}, fail: reset, status: "502", why: "body"},
		{name: "half a PUT, 503", client: []string{put[:len(put)-2]}, fail: func(w *world, o *end) { w.connect(o); w.data(o, busy) }, status: "503", why: "body"},
		{name: "half a PUT, nobody has got anything", client: []string{put[:len(put)-2]}, fail: refuse, sent: putSent[:len(putSent)-2]},
		{name: "half a POST, nobody has got anything", client: []string{post[:len(post)-2]}, fail: refuse, sent: postSent[:len(postSent)-2]},
		{name: "large PUT, reset", client: []string{
			fmt.Sprintf("PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", len(large)), large[:60<<10], large[60<<10:],
		}, fail: reset, status: "502", why: "body"},
		{name: "large POST, nobody has got anything", client: []string{
			fmt.Sprintf("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", len(large)), large[:60<<10], large[60<<10:],
		}, fail: refuse, status: "502", why: "body"},
		{name: "interim response sent, reset", client: []string{get}, fail: func(w *world, o *end) {
			w.connect(o)
			w.data(o, interims)
			w.eof(o, errReset)
		}, status: "103", why: "sent"},
		{name: "interim response not sent, reset", client: []string{"GET /x HTTP/1.0\r\nHost: a\r\n\r\n"}, fail: func(w *world, o *end) {
			w.connect(o)
			w.data(o, interims)
			w.eof(o, errReset)
		}, sent: strings.Replace(getSent, "Via: 1.1", "Via: 1.0", 1)},
		{name: "a body that is asked for", client: []string{"PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"}, fail: reset, status: "502", why: "body"},
		{
			name: "a body that nobody has asked for", client: []string{"PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"}, fail: refuse,
			sent: strings.Replace(putSent[:len(putSent)-5], "Via", "Expect: 100-continue\r\nVia", 1),
		},
		{name: "upgrade, reset", client: []string{upgrade}, fail: reset, sent: strings.Replace(strings.Replace(getSent, "/x", "/", 1), "Via", "Upgrade: x\r\nConnection: Upgrade\r\nVia", 1)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := retryWorld(t, retrying(2, nil))
			c := w.accept()
			w.client = c
			for _, p := range tt.client {
				w.data(c, p)
			}
			tt.fail(w, w.dialled[0])
			done, skipped := w.retries()
			if tt.why != "" {
				if got := c.take(); !strings.HasPrefix(got, "HTTP/1.1 "+tt.status+" ") || len(w.dialled) != 1 {
					t.Errorf("got %q after %d dials", got, len(w.dialled))
				}
				if done != "map[]" || skipped != "map["+tt.why+":1]" {
					t.Errorf("retries %s, skipped %s", done, skipped)
				}
				return
			}
			if got := c.take(); got != "" || len(w.dialled) != 2 || skipped != "map[]" {
				t.Fatalf("got %q after %d dials; skipped %s", got, len(w.dialled), skipped)
			}
			w.connect(w.dialled[1])
			if got := w.dialled[1].take(); got != tt.sent {
				t.Errorf("sent %q\nwant %q", got, tt.sent)
			}
		})
	}
}

// TestRetryThenTheRestOfTheBody: the body goes on to the backend that takes the
// request.
func TestRetryThenTheRestOfTheBody(t *testing.T) {
	w := retryWorld(t, retrying(3, nil))
	c := w.accept()
	w.data(c, post[:len(post)-4])
	w.failDial(w.dialled[0], false)
	w.data(c, "bc")
	w.failDial(w.dialled[1], true)
	w.connect(w.dialled[2])
	w.data(c, "de")
	if got := w.dialled[2].take(); got != postSent {
		t.Errorf("sent %q", got)
	}
	w.data(w.dialled[2], okay)
	if got := undated(c.take()); got != okaySent || w.inFlight() != 0 {
		t.Errorf("got %q, %d in flight", got, w.inFlight())
	}
}

// TestRetryNeverAfterAResponseHasBegun: it is cut.
func TestRetryNeverAfterAResponseHasBegun(t *testing.T) {
	w := retryWorld(t, retrying(2, nil))
	c := w.accept()
	w.data(c, get)
	w.connect(w.dialled[0])
	w.data(w.dialled[0], okay[:len(okay)-1])
	w.eof(w.dialled[0], errReset)
	if got := undated(c.take()); got != okaySent[:len(okaySent)-1] || !c.closed || len(w.dialled) != 1 {
		t.Errorf("got %q, closed %t, %d dials", got, c.closed, len(w.dialled))
	}
}

// TestRetryAtTheSameBackend: with no other left, it gets some time, more each time.
func TestRetryAtTheSameBackend(t *testing.T) {
	w := retryWorld(t, retrying(1, func(r *routetablev1.Retry) { r.Attempts = 6 }))
	c := w.accept()
	w.data(c, put[:len(put)-1])
	w.failDial(w.dialled[0], false)
	for i, ms := range []int{25, 50, 100, 200, 200} {
		pause := time.Duration(ms) * time.Millisecond
		w.pass(pause/2-1, c)
		if len(w.dialled) != i+1 {
			t.Fatalf("attempt %d came too early", i+2)
		}
		if !c.paused {
			t.Error("nobody takes what the client sends, and it is read")
		}
		w.pass(pause/2+1, c)
		if len(w.dialled) != i+2 {
			t.Fatalf("no attempt %d", i+2)
		}
		if i < 4 {
			w.failDial(w.newest(), false)
		}
	}
	w.connect(w.newest())
	w.data(c, "e")
	if got := w.newest().take(); got != putSent {
		t.Errorf("sent %q", got)
	}
	w.data(w.newest(), okay)
	if got := undated(c.take()); got != okaySent {
		t.Errorf("got %q", got)
	}
	if l := w.line(); l.Attempts != 6 || w.inFlight() != 0 {
		t.Errorf("logged %+v; %d in flight", l, w.inFlight())
	}
}

// TestRetryEndsWithTheClient: in an attempt, and between two.
func TestRetryEndsWithTheClient(t *testing.T) {
	for _, backends := range []int{1, 2} {
		w := retryWorld(t, retrying(backends, nil))
		c := w.accept()
		w.data(c, get)
		w.connect(w.dialled[0])
		w.eof(w.dialled[0], errReset)
		dials := len(w.dialled)
		w.eof(c, errReset)
		w.pass(time.Minute, append(w.dialled, c)...)
		if len(w.dialled) != dials || !w.newest().closed || w.inFlight() != 0 {
			t.Errorf("%d backends: %d dials, the last closed %t, %d in flight", backends, len(w.dialled)-dials, w.newest().closed, w.inFlight())
		}
		// With one backend it leaves in the pause.
		if l := w.line(); l.Status != 499 || l.Attempts != backends {
			t.Errorf("logged %+v", l)
		}
	}
}

// TestRetryWithinTheRequestTimeout: it bounds all attempts together, and the pauses
// between them.
func TestRetryWithinTheRequestTimeout(t *testing.T) {
	for _, backends := range []int{1, 2} {
		e := retrying(backends, nil)
		e.Timeouts.Request = durationpb.New(time.Second)
		w := retryWorld(t, e)
		c := w.accept()
		w.data(c, get)
		w.connect(w.dialled[0])
		w.pass(990*time.Millisecond, c)
		w.eof(w.dialled[0], errReset)
		w.pass(9*time.Millisecond, c)
		if got := c.take(); got != "" {
			t.Fatalf("too early: %q", got)
		}
		w.pass(time.Millisecond, c)
		if got := c.take(); !strings.HasPrefix(got, "HTTP/1.1 504 ") || w.inFlight() != 0 || !w.newest().closed {
			t.Errorf("%d backends: got %q, %d in flight", backends, got, w.inFlight())
		}
		if l := w.line(); l.Error != "request_timeout" || l.Attempts != backends {
			t.Errorf("logged %+v", l)
		}
		// In the pause nobody has the request, so nobody is to blame for the time.
		want := map[int]string{1: "map[reset:1]", 2: "map[request_timeout:1 reset:1]"}[backends]
		if failed, _ := w.errors(); failed != want {
			t.Errorf("%d backends: errors of backends %s, want %s", backends, failed, want)
		}
	}
}

// TestPausesAreScattered: what has failed at the same moment does not all come back at
// the same moment.
func TestPausesAreScattered(t *testing.T) {
	const requests, pause = 100, 25 * time.Millisecond
	w := newWorld(t, retrying(1, nil))
	seen := map[int64]bool{}
	var sum time.Duration
	for range requests {
		c := w.accept()
		w.data(c, get)
		w.failDial(w.newest(), false)
		took := time.Duration(c.deadline) - w.now
		if took < pause/2 || took > pause {
			t.Errorf("a pause of %s", took)
		}
		seen[c.deadline] = true
		sum += took
	}
	// Half of what there is room for is 15 standard errors away.
	if mean := sum / requests; len(seen) < requests*9/10 || mean < pause*5/8 || mean > pause*7/8 {
		t.Errorf("%d different pauses, %s on average", len(seen), mean)
	}
}

// TestPerTryTimeout: it bounds each attempt, the last as well, connecting included.
func TestPerTryTimeout(t *testing.T) {
	w := retryWorld(t, retrying(3, func(r *routetablev1.Retry) { r.PerTryTimeout = durationpb.New(300 * time.Millisecond) }))
	c := w.accept()
	w.data(c, put[:len(put)-1])
	w.connect(w.dialled[0])
	if got := w.dialled[0].limit; got != 300*time.Millisecond {
		t.Errorf("%v to connect", got)
	}
	w.pass(time.Second, c) // the client takes its time
	w.data(c, "e")
	for i := range 3 {
		w.connect(w.dialled[i])
		w.pass(299*time.Millisecond, c)
		w.data(w.dialled[i], "HTTP/1.1 ") // no head yet
		if len(w.dialled) != i+1 || c.take() != "" {
			t.Fatalf("attempt %d has ended too early", i+1)
		}
		w.pass(time.Millisecond, c)
	}
	if got := c.take(); len(w.dialled) != 3 || !strings.HasPrefix(got, "HTTP/1.1 504 ") {
		t.Errorf("%d attempts, then %q", len(w.dialled), got)
	}
	if backends, _ := w.errors(); backends != "map[per_try_timeout:3]" {
		t.Errorf("errors %s", backends)
	}
	t.Run("the response timeout may be shorter", func(t *testing.T) {
		e := retrying(2, func(r *routetablev1.Retry) { r.PerTryTimeout = durationpb.New(time.Minute) })
		w := retryWorld(t, e)
		c := w.accept()
		w.data(c, get)
		w.connect(w.dialled[0])
		if got := w.dialled[0].limit; got != time.Second {
			t.Errorf("%v to connect", got)
		}
		w.pass(30*time.Second, c)
		if backends, _ := w.errors(); len(w.dialled) != 2 || backends != "map[response_timeout:1]" {
			t.Errorf("%d attempts, errors %s", len(w.dialled), backends)
		}
	})
	t.Run("a response that has begun has all its time", func(t *testing.T) {
		w := retryWorld(t, retrying(2, func(r *routetablev1.Retry) { r.PerTryTimeout = durationpb.New(time.Second) }))
		c := w.accept()
		w.data(c, get)
		w.connect(w.dialled[0])
		w.data(w.dialled[0], okay[:len(okay)-1])
		w.pass(30*time.Second, c)
		w.data(w.dialled[0], "k")
		if got := undated(c.take()); got != okaySent {
			t.Errorf("got %q", got)
		}
	})
}

// TestRetryBudget: when everything fails, retries are a few in a second and a part
// of the requests, and no more.
func TestRetryBudget(t *testing.T) {
	const requests, percent, free = 1000, 20, 30
	w := retryWorld(t, retrying(2, func(r *routetablev1.Retry) { r.Attempts, r.BudgetPercent = 2, percent }))
	c := w.accept()
	exchange := func() {
		w.data(c, get)
		w.failDial(w.newest(), false)
		w.failDial(w.newest(), false) // if there is another one
		if got := c.take(); !strings.HasPrefix(got, "HTTP/1.1 502 ") {
			t.Fatalf("got %q", got)
		}
	}
	for range requests {
		exchange()
	}
	retries := w.counts("dataplane_retries_total", "reason")["connect_failure"]
	if most := float64(free + requests*percent/100); retries > most || retries < most-2 {
		t.Errorf("%v retries of %d requests", retries, requests)
	}
	if got := float64(len(w.dialled)); got != requests+retries {
		t.Errorf("backends have seen %v attempts", got)
	}
	// What was used up comes back, and no more than that.
	w.now += 11 * time.Second
	for range 100 {
		exchange()
	}
	if again := w.counts("dataplane_retries_total", "reason")["connect_failure"] - retries; again > free+20 || again < free+18 {
		t.Errorf("%v retries of 100 requests, ten seconds later", again)
	}
	// It survives a table.
	w.apply(wire(retrying(3, func(r *routetablev1.Retry) { r.BudgetPercent = 1 })))
	before := len(w.dialled)
	exchange()
	if len(w.dialled) != before+1 {
		t.Error("a new table has brought a new budget")
	}
}

// TestRetryAroundADeadBackend: a backend that cannot be reached costs no request and
// nothing of the budget while others can.
func TestRetryAroundADeadBackend(t *testing.T) {
	const requests = 900
	w := retryWorld(t, retrying(3, func(r *routetablev1.Retry) { r.BudgetPercent = 1 }))
	c := w.accept()
	for range requests {
		before := len(w.dialled)
		w.data(c, "GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
		for i := before; i < len(w.dialled); i++ {
			if o := w.dialled[i]; o.addr == "b1:80" {
				w.failDial(o, false)
			} else {
				w.connect(o)
			}
		}
		for _, o := range w.dialled {
			if len(o.take()) > 0 && !o.closed {
				w.data(o, okay)
			}
		}
		if got := c.take(); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
			t.Fatalf("got %q", got)
		}
	}
	if got, want := w.counts("dataplane_retries_total", "reason")["connect_failure"], float64(requests/3); got < want*0.7 {
		t.Errorf("%v retries of %d requests", got, requests)
	}
}

// TestRetryTakesASlotOfItsOwn: round robin goes on behind it.
func TestRetryTakesASlotOfItsOwn(t *testing.T) {
	w := retryWorld(t, retrying(4, nil))
	c := w.accept()
	var order []string
	for i := range 4 {
		w.data(c, get)
		if i == 1 {
			w.failDial(w.newest(), false)
		}
		w.connect(w.newest())
		w.data(w.newest(), okay)
	}
	for _, o := range w.dialled {
		order = append(order, o.addr)
	}
	if want := []string{"b0:80", "b1:80", "b2:80", "b3:80"}; !cmp.Equal(order[:4], want) {
		t.Errorf("dialled %v", order)
	}
	if got := len(w.dialled[0].take()); got != 2*len(getSent) {
		t.Errorf("the first backend got %d bytes: it was not the next after the last", got)
	}
}

// TestReplayIsNoAttempt: a connection that had rested and turns out to be closed is
// nobody's failure.
func TestReplayIsNoAttempt(t *testing.T) {
	w := retryWorld(t, retrying(1, func(r *routetablev1.Retry) { r.Attempts = 2 }))
	c := w.accept()
	w.data(c, get)
	w.connect(w.dialled[0])
	w.data(w.dialled[0], okay)
	w.line()
	c.take()
	w.data(c, get)
	w.eof(w.dialled[0], nil)
	w.connect(w.dialled[1]) // at once
	w.eof(w.dialled[1], nil)
	w.pass(25*time.Millisecond, c)
	w.connect(w.dialled[2])
	w.data(w.dialled[2], okay)
	if got := undated(c.take()); got != okaySent {
		t.Errorf("got %q", got)
	}
	if l := w.line(); l.Attempts != 2 {
		t.Errorf("logged %+v", l)
	}
	if backends, _ := w.errors(); backends != "map[reset:1]" {
		t.Errorf("errors %s", backends)
	}
}

// TestRetryEverySplit: wherever the bytes are cut, backends get the request whole
// and the client one response.
func TestRetryEverySplit(t *testing.T) {
	response := "HTTP/1.1 103 Early Hints\r\n\r\n" + okay
	responseSent := "HTTP/1.1 103 Early Hints\r\n\r\n" + okaySent
	for cut := range len(put) {
		for failAt := range len(busy) + 1 {
			w := newWorld(t, retrying(2, nil))
			w.recycle = true
			c := w.accept()
			if cut > 0 {
				w.data(c, put[:cut])
			}
			early := len(w.dialled) > 0 && failAt%2 == 0
			if early {
				w.connect(w.dialled[0])
			}
			w.data(c, put[cut:])
			w.connect(w.dialled[0])
			if got := w.dialled[0].take(); got != putSent {
				t.Fatalf("cut at %d: sent %q", cut, got)
			}
			if failAt < len(busy) {
				if failAt > 0 {
					w.data(w.dialled[0], busy[:failAt])
				}
				w.eof(w.dialled[0], errReset)
			} else {
				w.data(w.dialled[0], busy)
			}
			w.connect(w.dialled[1])
			if got := w.dialled[1].take(); got != putSent {
				t.Fatalf("cut at %d, failed after %d: sent again %q", cut, failAt, got)
			}
			at := (cut + failAt) % len(response)
			if at > 0 {
				w.data(w.dialled[1], response[:at])
			}
			w.data(w.dialled[1], response[at:])
			if got := undated(c.take()); got != responseSent || w.inFlightFast() != 0 {
				t.Fatalf("cut at %d, failed after %d: got %q, %d in flight", cut, failAt, got, w.inFlightFast())
			}
		}
	}
}

// inFlightFast is inFlight without a scrape.
func (w *world) inFlightFast() (n int64) {
	for addr := range w.backends.Addresses() {
		n += w.backends.State(addr).InFlight()
	}
	return n
}

// TestRetryGoesByTheTableInForce: a backend that has been drained, or an endpoint that
// is no more, gets nothing that failed elsewhere.
func TestRetryGoesByTheTableInForce(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(e *routetablev1.Endpoint)
		next   string // "": nobody
	}{
		{"unchanged", func(*routetablev1.Endpoint) {}, "b1:80"},
		{"the next one drained", func(e *routetablev1.Endpoint) { e.Pool[1].Weight = 0 }, "b2:80"},
		{"all drained", func(e *routetablev1.Endpoint) {
			for _, b := range e.Pool {
				b.Weight = 0
			}
		}, ""},
		{"gone", func(e *routetablev1.Endpoint) { e.Name = "other" }, ""},
		{"answers itself", func(e *routetablev1.Endpoint) {
			e.Pool, e.Answer = nil, &routetablev1.Endpoint_Respond{Respond: &routetablev1.Respond{Status: 200}}
		}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := retryWorld(t, retrying(3, nil))
			c := w.accept()
			w.data(c, get)
			w.connect(w.dialled[0])
			e := retrying(3, nil)
			tt.change(e)
			w.apply(wire(e))
			w.eof(w.dialled[0], errReset)
			next := ""
			if len(w.dialled) > 1 {
				next = w.newest().addr
				w.connect(w.newest())
				w.data(w.newest(), okay)
			}
			got := c.take()
			if next != tt.next || (next == "") != strings.HasPrefix(got, "HTTP/1.1 502 ") || w.inFlight() != 0 {
				t.Errorf("sent again to %q, answered %q, %d in flight", next, got, w.inFlight())
			}
		})
	}
}
