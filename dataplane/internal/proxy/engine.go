package proxy

import (
	"log/slog"
	"math/rand/v2"
	"time"

	"reverseproxy/dataplane/internal/accesslog"
	"reverseproxy/dataplane/internal/backend"
	"reverseproxy/dataplane/internal/http1"
	"reverseproxy/dataplane/internal/metrics"
	"reverseproxy/dataplane/internal/sample"
	"reverseproxy/dataplane/internal/table"
	"reverseproxy/proto/routetable"
)

// Pseudonym is the name under which this proxy appears in Via fields (RFC 9110
// section 7.6.3): a real host name would tell clients about the inside.
const Pseudonym = "reverseproxy"

const (
	// responseHeadBytes and responseFields bound a backend's response head.
	responseHeadBytes = 64 << 10
	responseFields    = 256
	// maxInterim is how many 1xx responses one request may have: they are sent on
	// at once, so that a backend could make the proxy send without end.
	maxInterim = 64
	// maxHeld is the longest request that is kept to be sent again.
	maxHeld = 64 << 10
	// lingerSilence ends lingering when the client sends nothing, lingerTime in
	// any case.
	lingerSilence = 2 * time.Second
	lingerTime    = 30 * time.Second

	// shareStep is odd, so that all shares are given out before one is given again,
	// and the golden section of them, so that any few in a row lie evenly.
	shareStep = 159

	bufferBytes    = 4 << 10  // of a new buffer
	maxBufferBytes = 32 << 10 // larger ones are left to the garbage collector
	maxBuffers     = 256      // kept for reuse
	maxRequests    = 4096     // as well
	maxScratch     = 256 << 10
)

// Config is what an Engine needs. All fields but Page, AccessLog, Samples and Clock are
// required.
type Config struct {
	Driver  Driver
	Live    *table.Live
	Metrics *metrics.Set
	Shard   int // of Metrics; owned by this engine
	// Page renders what GET /metrics on the proxy port answers; nil: nothing. It
	// is called outside the loop.
	Page func() (contentType string, body []byte)
	// AccessLog takes the lines about requests; nil: nobody does. Owned by this
	// engine.
	AccessLog *accesslog.Shard
	// Samples keeps what some requests look like; nil: none. Owned by this engine.
	Samples *sample.Shard
	Log     *slog.Logger
	// Clock is the wall clock for Date fields and the access log; nil: time.Now.
	Clock func() time.Time
}

// Engine runs the sessions of one event loop. Not for concurrent use.
type Engine struct {
	d       Driver
	live    *table.Live
	metrics *metrics.Set
	none    *metrics.Endpoint
	shard   int
	page    func() (string, []byte)
	lines   *accesslog.Shard
	samples *sample.Shard
	log     *slog.Logger
	clock   func() time.Time
	random  *rand.ChaCha8

	now    int64 // set by SetNow
	date   []byte
	dateAt int64 // second of now in which date was made, plus 1
	epoch  int64 // what now is 0 at, in Unix nanoseconds; see wall
	wallAt int64 // second of now in which epoch was set, plus 1

	idle  map[*backend.State]*idleList
	swept string // the version for which idle has no list that is not needed
	// reading is the connection whose requests are being worked through: when one
	// of them is answered at once, the next is taken there and not in finish.
	reading *Conn
	// receiving is the connection of which a response is being worked through. There
	// may be more in it than was shown, so the request that comes next takes another.
	receiving *Conn
	serial    uint64 // of the last exchange
	share     uint8  // of the last client connection

	// Scratch space of one callback.
	req                 http1.Request
	resp                http1.Response
	query               table.Query
	scratch             []byte
	target              []byte
	keyRoom, cookieLine []byte
	report              metrics.Request
	line                accesslog.Line
	variables           routetable.Values // of the templates that are being filled in

	buffers      [][]byte   // free
	requestsFree []*request // free, each zeroed
	notes        []*note    // free
}

// New returns an engine without connections.
func New(c Config) *Engine {
	e := &Engine{
		d: c.Driver, live: c.Live, metrics: c.Metrics, shard: c.Shard, page: c.Page, lines: c.AccessLog,
		samples: c.Samples, log: c.Log, clock: c.Clock, random: newRandom(), idle: map[*backend.State]*idleList{},
	}
	if e.clock == nil {
		e.clock = time.Now
	}
	e.none = e.metrics.None()
	e.query.Header = &e.req.Head
	return e
}

// SetNow tells the time in nanoseconds since an arbitrary moment, at least 1 and
// never going back. The driver calls it before each callback, or once for the
// callbacks of one iteration.
func (e *Engine) SetNow(ns int64) { e.now = ns }

// Accept takes over a new client connection. remote is the client's address
// without the port, as it is to appear in X-Forwarded-For.
func (e *Engine) Accept(c *Conn, remote string, o *Origin) {
	c.client, c.remote, c.origin = true, remote, o
	if o.told.Load() == 0 {
		// Those that come one after the other are told far apart.
		e.share += shareStep
		c.share = e.share
	}
	c.state = idle
	e.metrics.Connections(e.shard, metrics.Idle, 1)
	if t := e.live.Load(); t != nil && t.ProxyProtocol {
		e.expectHeader(c)
		return
	}
	e.rest(c)
}

// Refuse answers a new client connection with 503 and closes it: there are more
// than the limit allows. It answers without waiting for a request, because a
// connection that says nothing must not hold a place.
func (e *Engine) Refuse(c *Conn, remote string, o *Origin) {
	e.Accept(c, remote, o)
	e.refuse(c, 503)
}

// Data takes bytes that arrived; at most ReadSize, valid during the call only.
// Not while c is paused.
func (e *Engine) Data(c *Conn, p []byte) {
	switch c.state {
	case preface:
		e.header(c, p)
	case idle, head:
		e.requests(c, p)
	case exchange:
		e.requestBody(c, p)
	case linger:
		e.lingering(c)
	case waiting:
		e.receiving = c
		e.responseHead(c, p)
		e.receiving = nil
	case relaying:
		e.receiving = c
		e.responseBody(c, p)
		e.receiving = nil
	case resting:
		// RFC 9112 section 9.2: nobody asked for anything; what it belongs to
		// can only be guessed, and a guess would answer the next request.
		e.retire(c)
	case tunnel:
		e.tunnelData(c, p)
	}
}

// EOF tells that nothing more will be received: the peer has closed its sending
// side (err is nil; not while c is paused), or the connection is broken.
func (e *Engine) EOF(c *Conn, err error) {
	c.eof = true
	switch c.state {
	case preface:
		e.headerEOF(c)
	case idle, head:
		e.clientGone(c, err)
	case exchange:
		switch x := c.x; {
		case err != nil || !x.done && !x.responded || x.place != nil:
			// Who waits in line need not be answered: it is better that nobody works
			// for a client that has left than that a client can shut down only its
			// sending side.
			e.clientGone(c, err)
		case !x.done:
			e.stopsSending(c)
		}
		// Otherwise the client may have shut down only its sending side: it
		// still gets its answer (RFC 9112 section 9.6 knows half-closed
		// connections; a reset later tells the other case).
	case linger:
		if err != nil {
			e.close(c)
		} else {
			e.closeWhenSent(c)
		}
	case closing:
		if err != nil {
			e.close(c)
		}
	case waiting, relaying:
		e.backendEOF(c, err)
	case resting:
		e.closedEarly(c)
		e.retire(c)
	case tunnel:
		e.tunnelEOF(c, err)
	}
}

// Drained tells that everything queued for c has been written. A driver that
// writes everything inside Send need not call it then.
func (e *Engine) Drained(c *Conn) {
	switch c.state {
	case idle, head:
		if c.state == idle {
			e.rest(c) // from now on
		}
		if c.paused {
			e.requests(c, nil)
		}
	case exchange:
		if b := c.peer; b != nil {
			e.resume(b)
			if b.state == relaying {
				e.goOn(b)
			} else {
				e.arm(c)
			}
		}
	case waiting, relaying:
		x := c.peer
		if !x.x.done || !x.hasUnused() {
			e.resume(x)
		}
		e.arm(x)
	case tunnel:
		e.resume(c.peer)
		e.armTunnel(c)
	case linger:
		e.armLinger(c)
	case closing:
		e.closeNow(c)
	}
}

// Timeout tells that the deadline of c has passed.
func (e *Engine) Timeout(c *Conn) {
	switch c.state {
	case preface:
		e.headerFailed(c, metrics.ProxyHeaderTimeout)
	case idle:
		e.idleTimeout(c)
	case head:
		e.headTimeout(c)
	case exchange:
		e.exchangeTimeout(c)
	case linger:
		if e.now < c.until && e.progress(c) {
			e.armLinger(c)
			return
		}
		e.close(c)
	case resting:
		e.retire(c)
	case tunnel:
		e.tunnelTimeout(c)
	case closing:
		if e.progress(c) {
			e.armClosing(c)
			return
		}
		c.abort = true
		e.closeNow(c)
	}
}

// Connected tells that a dialled connection is open.
func (e *Engine) Connected(b *Conn) {
	if b.state != dialing {
		return
	}
	b.state = waiting
	b.backend.SetUp(true)
	if x := b.peer.x; !idempotent(x.method) {
		e.letGo(x) // from now on the backend has something of it
	}
	e.arm(b.peer)
}

// DialFailed tells that a connection could not be opened. The driver has freed
// it; timeout tells whether time ran out.
func (e *Engine) DialFailed(b *Conn, timeout bool) {
	if b.state != dialing {
		return
	}
	c := b.peer
	b.backend.SetUp(false)
	b.state, b.peer, c.peer = closed, nil, nil
	if timeout {
		e.attemptFailed(c, metrics.ConnectTimeout, metrics.RetryConnectFailure, 504)
		return
	}
	e.attemptFailed(c, metrics.ConnectFailed, metrics.RetryConnectFailure, 502)
}

// CloseIdle closes a client connection that has been between two requests since a
// moment, or longer, for draining, and reports whether it did.
func (e *Engine) CloseIdle(c *Conn, since int64) bool {
	if !c.AtRest(since) || e.unsent(c) > 0 {
		return false
	}
	e.close(c)
	return true
}

// Abandon gives up c, and what depends on it, after a callback for it panicked.
func (e *Engine) Abandon(c *Conn) {
	e.reading, e.receiving = nil, nil
	switch c.state {
	case closed:
		return
	case resting:
		e.retire(c)
		return
	}
	client, b := c, c.peer
	if !c.client {
		client, b = c.peer, c
	}
	if client != nil {
		client.peer = nil
		if client.x != nil {
			client.x.byProxy = true
			e.end(client, 500)
		}
		client.abort = true
		e.closeNow(client)
	}
	if b != nil {
		b.peer = nil
		e.close(b)
	}
}

// become moves a client connection to another state and counts it.
func (e *Engine) become(c *Conn, s state) {
	from, to := counted(c.state), counted(s)
	c.state = s
	if from == to {
		return
	}
	if from != uncounted {
		e.metrics.Connections(e.shard, metrics.ConnState(from), -1)
	}
	if to != uncounted {
		e.metrics.Connections(e.shard, metrics.ConnState(to), 1)
	}
}

const uncounted = -1

func counted(s state) int {
	switch s {
	case preface, idle:
		return int(metrics.Idle)
	case tunnel:
		return int(metrics.Tunnel)
	case closed:
		return uncounted
	}
	return int(metrics.Active)
}

func (e *Engine) pause(c *Conn) {
	if !c.paused {
		c.paused = true
		e.d.Pause(c)
	}
}

func (e *Engine) resume(c *Conn) {
	if c.paused {
		c.paused = false
		e.d.Resume(c)
	}
}

// throttle pauses from while too much that came from it waits to be sent to to.
func (e *Engine) throttle(from, to *Conn) {
	if e.d.Queued(to) > highWater {
		e.pause(from)
	}
}

// close closes any connection at once. What is queued for it is lost.
func (e *Engine) close(c *Conn) {
	c.abort = false
	e.closeNow(c)
}

// closeNow is close, with a reset if c.abort is set.
func (e *Engine) closeNow(c *Conn) {
	if c.state == closed {
		return
	}
	if c.client {
		e.become(c, closed)
	}
	c.state = closed
	e.putRequest(c)
	c.in, c.off = nil, 0 // not reused: a caller may still be looking at it
	c.peer = nil
	if c.abort {
		e.d.Abort(c)
		return
	}
	e.d.Close(c)
}

// closeWhenSent closes c when everything queued for it is written.
func (e *Engine) closeWhenSent(c *Conn) {
	if c.state == closed {
		return
	}
	if e.unsent(c) == 0 {
		e.closeNow(c)
		return
	}
	if c.client {
		e.become(c, closing)
		e.putRequest(c)
	}
	c.state = closing
	e.armClosing(c)
}

// unsent returns how many bytes would be lost if c was closed.
func (e *Engine) unsent(c *Conn) int {
	e.d.Flush(c)
	return e.d.Queued(c)
}

func (e *Engine) armClosing(c *Conn) {
	c.mark = e.d.Queued(c)
	e.d.After(c, e.now+int64(lingerTime))
}

// lingerClose ends the connection of a client that may still be sending. To
// close it now would send a reset as soon as something arrives, and the reset
// could destroy the response before the client has read it (RFC 9112 section
// 9.6): FIN first, then read on for a while.
func (e *Engine) lingerClose(c *Conn) {
	if c.eof {
		e.closeWhenSent(c)
		return
	}
	e.become(c, linger)
	e.putRequest(c)
	c.until = e.now + int64(lingerTime)
	c.in, c.off = nil, 0
	e.d.CloseWrite(c)
	e.resume(c)
	e.armLinger(c)
}

func (e *Engine) lingering(c *Conn) {
	switch {
	case e.d.Queued(c) > 0:
		// Whether it reads decides, not what it sends.
	case e.now >= c.until:
		e.close(c)
	default:
		e.armLinger(c)
	}
}

func (e *Engine) armLinger(c *Conn) {
	c.mark = e.d.Queued(c)
	if c.mark > 0 {
		// The response is still on its way: the time to linger starts with its
		// end.
		c.until = e.now + 2*int64(lingerTime)
		e.d.After(c, e.now+int64(lingerTime))
		return
	}
	c.until = min(c.until, e.now+int64(lingerTime))
	e.d.After(c, min(e.now+int64(lingerSilence), c.until))
}

// progress reports whether the peer of c has taken something of what was queued
// when the deadline was set.
func (e *Engine) progress(c *Conn) bool { return e.d.Queued(c) < c.mark }

// buffer returns an empty buffer to append to.
func (e *Engine) buffer() []byte {
	if n := len(e.buffers); n > 0 {
		b := e.buffers[n-1]
		e.buffers = e.buffers[:n-1]
		return b
	}
	return make([]byte, 0, bufferBytes)
}

// putBuffer takes back a buffer that nobody refers to.
func (e *Engine) putBuffer(b []byte) {
	if cap(b) > maxBufferBytes || len(e.buffers) >= maxBuffers {
		return
	}
	e.buffers = append(e.buffers, b[:0])
}

// put takes back the scratch buffer, which may have grown.
func (e *Engine) put(scratch []byte) {
	if cap(scratch) <= maxScratch {
		e.scratch = scratch[:0]
	}
}
