package proxy

import (
	"sync/atomic"

	"reverseproxy/dataplane/internal/backend"
	"reverseproxy/dataplane/internal/http1"
	"reverseproxy/dataplane/internal/limit"
	"reverseproxy/dataplane/internal/metrics"
	"reverseproxy/dataplane/internal/table"
)

// state is where a connection is. A client connection:
//
//	        first byte        head complete, to a backend
//	┌─idle────────────▶head──────────────────────────────▶exchange──▶tunnel
//	│  ▲                │                                  │  │        │
//	│  └────────────────┴──answered, connection persists───┘  │        │
//	│                   │                                     │        │
//	│                   └──answered, connection ends──┬───────┘        │
//	│                                                 ▼                │
//	│                  client may still be sending: linger             │
//	│                                                 ▼                │
//	│                  output not written yet:     closing◀────────────┤
//	│                                                 ▼                │
//	└────────────────────────────────────────────▶closed◀──────────────┘
//
// A backend connection:
//
//	dialing──▶waiting──▶relaying──▶resting──▶waiting…
//	   │         ├──▶tunnel──▶closing  │
//	   └─────────┴──────────┴──────────┴──▶closed
type state uint8

const (
	closed state = iota

	// Client connections.
	preface  // accepted, and a header of the PROXY protocol must come; idle follows
	idle     // between requests: nothing of the next one has been read
	head     // a part of a request head has been read
	exchange // a request is being forwarded and answered
	linger   // answered for the last time; what still comes is thrown away

	// Backend connections.
	dialing  // not connected yet; what is sent is queued
	waiting  // given a request; the head of the final response has not come
	relaying // the body of the response is coming
	resting  // in the list of idle connections

	// Both.
	tunnel  // upgraded: bytes pass as they are
	closing // to be closed as soon as its output is written
)

// Origin is where client connections come from: a listener. Once it is draining,
// its connections are told, by a response that says so, that this response is
// their last. Any goroutine may use it.
type Origin struct {
	// told is how much of AllShares is told; 0: it is not draining.
	told atomic.Uint32
	// Connections counts those that are open; whoever accepts and closes them
	// keeps it.
	Connections atomic.Int64
}

// AllShares is what Drain takes to mean every connection.
const AllShares = 256

// Drain makes the next response on connections of this origin their last: on
// those that are accepted from now on, and on that part of the others, in shares of
// AllShares. So a large number of clients can be sent away a few at a time. A later
// call can only add to that.
func (o *Origin) Drain(shares uint32) {
	for {
		told := o.told.Load()
		next := max(told, min(shares, AllShares), 1)
		if next == told || o.told.CompareAndSwap(told, next) {
			return
		}
	}
}

// last reports whether the next response on c is to be its last one.
func (o *Origin) last(c *Conn) bool { return uint32(c.share) < o.told.Load() }

// Conn is the session's part of a connection, to a client or to a backend. A
// driver keeps one in each of its connections, zeroed before use.
type Conn struct {
	// Handle is the driver's own; the engine does not look at it.
	Handle any

	state  state
	paused bool // the driver was told to pause reading
	eof    bool // the peer has sent its FIN
	abort  bool // closing ends with a reset
	client bool
	share  uint8 // of a client connection: when it is told that its origin drains

	// peer is the other connection of the exchange or tunnel, nil when there is
	// none. Each of two peers points to the other.
	peer *Conn

	// rested is since when a client's connection has been between two requests,
	// and a backend's in the idle list.
	rested int64

	// in[off:] are bytes received that could not be used yet. The backing array
	// is borrowed from the engine and nil when there are none.
	in  []byte
	off int

	scan http1.Scan // of the head in in
	body http1.Body // of the message being received

	// untilClose: only the end of the connection ends body.
	untilClose bool

	// trusted: this client connection comes from a trusted proxy, by the set of them
	// that has the number trustedBy; see isTrusted.
	trusted   bool
	trustedBy uint32

	// mark is how much was queued, both ways, when the deadline was last set: a
	// queue that has shrunk since then is progress.
	mark int

	// Client connections only.
	origin *Origin
	remote string // the address of the peer, without port; of a PROXY protocol header, its source
	until  int64  // when lingering ends, whatever the client does
	// x is the exchange in progress: set from the end of its request's head until
	// the connection waits for the next request, lingers or is closed.
	x *request

	// Backend connections only.
	backend    *backend.State
	last       bool // must not be used for another request
	reframe    reframe
	next, prev *Conn // in the idle list: next is older
}

// reframe is how the body of a response is changed on its way to the client.
type reframe uint8

const (
	asIs    reframe = iota
	toChunk         // delimited by close: chunked from here on
	toClose         // chunked: delimited by close for an HTTP/1.0 client
)

// request is the state of one exchange. Connections at rest have none: it holds on
// to a route table, and is a good part of what a connection weighs.
type request struct {
	endpoint *table.Endpoint // nil: none takes it, or it is answered here
	member   *table.Member   // nil until chosen
	choice   table.Choice    // what it is chosen by
	cookie   [16]byte        // what the client's cookie for that is made of, with setCookie
	counters *metrics.Endpoint
	started  int64 // when the head was complete
	until    int64 // when all of it must have ended; 0: at any time
	chosen   int64 // when the member was chosen
	asked    int64 // when it was to be sent the request, or had been sent all of it
	switched int64 // when the connection was upgraded, else 0
	in, out  uint64

	// held is the request as far as it has come, kept while it may have to be sent
	// again; nil when it may not. Its first bytes, head of them, are its head.
	held  []byte
	again *again // nil: it has been sent once, at most

	// lines are the field lines that the endpoint adds to the response, borrowed from
	// the engine; nil: none.
	lines []byte

	// note is what the route table wants to be kept about the request; nil when
	// it wants nothing.
	note *note

	// address[:addressSize] is the client's address as a text; of size 0 when it is
	// that of the peer. See Conn.clientAddress.
	address     [maxAddress]byte
	addressSize uint8
	// trusted: the request comes from a trusted proxy.
	trusted    bool
	gate       *limit.Gate // that it has been let in by and has to leave; nil: none
	place      *place      // in line; nil: it does not wait
	waits      int64       // since when it has waited in line; 0: it never has
	retryAfter int64       // seconds that the client is told to wait; 0: it is told nothing

	serial  uint64 // tells the exchanges of the connection apart
	code    int
	interim int // 1xx responses so far
	method  http1.Method
	head    int32
	minor   uint8
	byProxy bool

	rated     bool // the rate of its endpoint has been asked
	wantClose bool // the client's connection does not persist
	goodbye   bool // because the client said that this is its last request
	upgrade   bool // an upgrade was asked for and passed on
	expects   bool // the client waits for 100 before it sends the body
	done      bool // the request has been received whole
	seen      bool // something of the response has been received
	responded bool // the head of the final response has been sent
	keep      bool // the response said that the client's connection persists
	setCookie bool // the client gets a cookie with the response
	failed    bool // its error has been counted
}

// newRequest gives c the state of a new exchange.
func (e *Engine) newRequest(c *Conn) *request {
	var x *request
	if n := len(e.requestsFree); n > 0 {
		x = e.requestsFree[n-1]
		e.requestsFree = e.requestsFree[:n-1]
	} else {
		x = new(request)
	}
	e.serial++
	x.serial, x.started = e.serial, e.now
	c.x = x
	return x
}

// putRequest takes the state of an exchange back. Nothing may look at it any more.
func (e *Engine) putRequest(c *Conn) {
	x := c.x
	if x == nil {
		return
	}
	c.x = nil
	if len(e.requestsFree) < maxRequests {
		*x = request{}
		e.requestsFree = append(e.requestsFree, x)
	}
}

// unused returns the bytes received and not used, p behind those kept before.
// own tells keep that they are in c.in.
func (e *Engine) unused(c *Conn, p []byte) (all []byte, own bool) {
	if c.in == nil {
		return p, false
	}
	if c.off > 0 {
		c.in = c.in[:copy(c.in, c.in[c.off:])]
		c.off = 0
	}
	c.in = append(c.in, p...)
	return c.in, true
}

// keep keeps rest, a tail of what unused returned, for later.
func (e *Engine) keep(c *Conn, rest []byte, own bool) {
	switch {
	case len(rest) == 0:
		if own {
			e.putBuffer(c.in)
			c.in, c.off = nil, 0
		}
	case own:
		c.off = len(c.in) - len(rest)
	default:
		c.in, c.off = append(e.buffer(), rest...), 0
	}
}

// AtRest reports whether c is a client connection that has been between two
// requests since a moment, in the time of SetNow, or longer.
func (c *Conn) AtRest(since int64) bool {
	return (c.state == idle || c.state == preface) && !c.hasUnused() && c.rested <= since
}

// Origin returns where a client connection comes from, nil for one to a backend.
func (c *Conn) Origin() *Origin { return c.origin }

// Answering reports whether c is a client connection whose request has been
// received whole and given to a backend: nothing more is expected from the client
// before it is answered.
func (c *Conn) Answering() bool { return c.state == exchange && c.x.done && c.peer != nil }

// hasUnused reports whether bytes of a next message wait in c.
func (c *Conn) hasUnused() bool { return c.in != nil }
