// Package metrics counts what the data plane does. Counters are sharded: each
// event loop owns one shard and is its only writer, so that the request path
// touches no shared cache line; the scraper sums the shards. Identity is the
// endpoint's name and the backend's URL: counters survive route tables, and the
// series of what has left the table are not exposed any more.
//
// Every series whose labels are known is exposed as soon as an endpoint has
// counters, so that a first increase is seen as one. Package table decides when
// that is: a large table costs nothing here until there is traffic. A shard's
// counters of an endpoint or backend are allocated when the shard first uses it.
package metrics

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"reverseproxy/dataplane/internal/backend"
	"reverseproxy/proto/routetable"
)

// Set is all counters of a data plane. It is a prometheus.Collector. Endpoint,
// Detached, Forget, Totals and Collect may be called from several goroutines and
// do not delay the request path; who may call the rest is said there.
type Set struct {
	none   *Endpoint
	shards []setShard

	mu        sync.Mutex // guards endpoints, made, the backends of each, and leaving
	endpoints map[string]*Endpoint
	made      uint64 // endpoints so far
	// leaving are backends that are not exposed any more while they have requests
	// in flight.
	leaving []*Backend
}

// setShard is what one shard counts beyond endpoints, on cache lines of its own.
type setShard struct {
	durations    [Buckets]atomic.Uint64 // of requests answered; as in histogram
	failures     atomic.Uint64          // by the proxy itself
	serverErrors atomic.Uint64
	gateway      atomic.Uint64 // those of them for want of a backend
	connections  [connStates]atomic.Int64
	clientErrors [clientReasons]atomic.Uint64
	_            [256 - (Buckets+3+connStates+clientReasons)*8]byte
}

// NewSet returns a set with the given number of shards.
func NewSet(shards int) *Set {
	s := &Set{shards: make([]setShard, shards), endpoints: map[string]*Endpoint{}}
	s.none = &Endpoint{set: s, name: routetable.NoEndpoint}
	return s
}

// Endpoint returns the counters of an endpoint by name, creating them.
func (s *Set) Endpoint(name string) *Endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.endpoints[name]
	if e == nil {
		s.made++
		e = &Endpoint{set: s, name: name, number: s.made}
		s.endpoints[name] = e
	}
	return e
}

// None returns the counters of requests that no endpoint takes (endpoint="none").
func (s *Set) None() *Endpoint { return s.none }

// Detached returns new counters that are not exposed, but for Totals.
func (s *Set) Detached(name string) *Endpoint { return &Endpoint{set: s, name: name} }

// Forget ends the exposition of an endpoint. Its counters go on working for
// requests in flight; Endpoint makes new ones, which start from zero.
func (s *Set) Forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.endpoints[name]; e != nil {
		for b := e.backends; b != nil; b = b.next {
			s.leave(b)
		}
	}
	delete(s.endpoints, name)
}

// leave keeps a backend that is forgotten in mind until its last request has ended.
// The caller holds mu.
func (s *Set) leave(b *Backend) {
	s.leaving = slices.DeleteFunc(s.leaving, (*Backend).quiet)
	if !b.quiet() {
		s.leaving = append(s.leaving, b)
	}
}

// Totals is what all endpoints together have done since start, forgotten ones and the
// requests that none took included.
type Totals struct {
	Requests      uint64 // answered
	Failures      uint64 // answered by the proxy itself with a status of 500 or more
	ServerErrors  uint64 // answered with such a status by anybody
	GatewayErrors uint64 // those of them that the proxy answered because no backend could, or none in time
	Durations     [Buckets]uint64
}

// Totals returns the totals.
func (s *Set) Totals() (t Totals) {
	for i := range s.shards {
		c := &s.shards[i]
		// In this order no part can exceed the whole.
		t.Failures += c.failures.Load()
		t.GatewayErrors += c.gateway.Load()
		t.ServerErrors += c.serverErrors.Load()
		for b := range t.Durations {
			n := c.durations[b].Load()
			t.Durations[b] += n
			t.Requests += n
		}
	}
	return t
}

// Answered appends how many requests each shard has answered.
func (s *Set) Answered(to []uint64) []uint64 {
	for i := range s.shards {
		var n uint64
		for b := range s.shards[i].durations {
			n += s.shards[i].durations[b].Load()
		}
		to = append(to, n)
	}
	return to
}

// add adds to a counter that has one writer, which need not be an atomic step as
// a whole; atomic are what its readers may see.
func add(c *atomic.Uint64, n uint64) { c.Store(c.Load() + n) }

// Endpoint counts for one endpoint.
type Endpoint struct {
	set    *Set
	name   string
	number uint64 // in the order in which they are made
	shards shards[endpointShard]
	limits endpointLimits
	health endpointHealth
	// retries are made with the first one.
	retries shards[retryShard]
	retried atomic.Bool // whether there may be retries

	// Guarded by set.mu.
	backends *Backend            // a list
	index    map[string]*Backend // the list by URL, when it is long

	told toldOf // of the newest Reporter
}

// endpointShard is written by one shard only. Requests in flight are those begun
// and not yet in codes.
type endpointShard struct {
	begun             atomic.Uint64
	codes             codes
	bytesIn, bytesOut atomic.Uint64
	seconds           histogram
	_                 [192 - 4*8 - histogramSize]byte // whole cache lines
}

// Backend returns the counters of a backend of this endpoint, creating them. It
// may be called from several goroutines.
func (e *Endpoint) Backend(url string) *Backend {
	e.set.mu.Lock()
	defer e.set.mu.Unlock()
	if b := e.find(url); b != nil {
		return b
	}
	b := &Backend{set: e.set, url: url, next: e.backends}
	e.backends = b
	if e.index != nil {
		e.index[url] = b
	}
	return b
}

// find returns the backend with this URL, nil when there is none. It makes the
// index when the list has become long. The caller holds set.mu.
func (e *Endpoint) find(url string) *Backend {
	const long = 16
	if e.index != nil {
		return e.index[url]
	}
	n := 0
	for b := e.backends; b != nil; b = b.next {
		if b.url == url {
			return b
		}
		n++
	}
	if n >= long {
		e.index = make(map[string]*Backend, 2*n)
		for b := e.backends; b != nil; b = b.next {
			e.index[b.url] = b
		}
	}
	return nil
}

// Retain ends the exposition of the backends for which keep is false, as Forget
// does for a whole endpoint. It may be called from several goroutines.
func (e *Endpoint) Retain(keep func(url string) bool) {
	e.set.mu.Lock()
	defer e.set.mu.Unlock()
	for at := &e.backends; *at != nil; {
		b := *at
		if keep(b.url) {
			at = &b.next
			continue
		}
		*at = b.next
		delete(e.index, b.url)
		e.set.leave(b)
	}
}

// Request is what one finished request adds.
type Request struct {
	Method   string // any; unknown ones count as "other"
	Code     int    // status sent, 499 when the client left before one was sent
	ByProxy  bool   // the proxy answered itself
	Duration time.Duration
	BytesIn  uint64 // request, head and body
	BytesOut uint64 // response, head and body
}

// Begin counts a request into in_flight; End takes it out and counts it. Only by
// the owner of the shard; both on the same shard.
func (e *Endpoint) Begin(shard int) {
	add(&e.shards.of(e.set, shard).begun, 1)
}

// Withdraw takes back a Begin: another endpoint takes the request after all. Only by
// the owner of the shard.
func (e *Endpoint) Withdraw(shard int) {
	begun := &e.shards.of(e.set, shard).begun
	begun.Store(begun.Load() - 1)
}

// End is the counterpart of Begin.
func (e *Endpoint) End(shard int, r *Request) {
	c := e.shards.of(e.set, shard)
	bucket := c.seconds.observe(r.Duration)
	add(&c.bytesIn, r.BytesIn)
	add(&c.bytesOut, r.BytesOut)
	c.codes.add(r.Code, methodOf(r.Method))
	s := &e.set.shards[shard]
	// Requests are not counted beside their durations: that would be one more locked
	// instruction for each.
	add(&s.durations[bucket], 1)
	if r.Code >= 500 {
		s.failed(r, e != e.set.none)
	}
}

// failed counts a request that was answered with a status of 500 or more; routed: an
// endpoint took it.
func (s *setShard) failed(r *Request, routed bool) {
	add(&s.serverErrors, 1)
	if !r.ByProxy {
		return
	}
	if routed && r.Code >= 502 && r.Code <= 504 {
		add(&s.gateway, 1)
	}
	add(&s.failures, 1)
}

// Backend counts for one backend of one endpoint.
type Backend struct {
	set     *Set
	url     string
	members atomic.Pointer[[]*backend.Member]
	shards  shards[backendShard]
	next    *Backend // of the endpoint; guarded by set.mu
	told    told     // of the newest Reporter
}

// backendShard is written by one shard only.
type backendShard struct {
	begun, ended atomic.Uint64
	codes        codes
	errors       [reasons]atomic.Uint64
	seconds      histogram
	_            [256 - (3+reasons)*8 - histogramSize]byte // whole cache lines
}

// Track exposes whether the backend can be used: at one of its addresses at least.
// Nobody may change the slice afterwards.
func (b *Backend) Track(members []*backend.Member) { b.members.Store(&members) }

// up reports whether a member is usable and could be connected to the last time.
// ok is false when nothing is tracked.
func (b *Backend) up() (up, ok bool) {
	members := b.members.Load()
	if members == nil {
		return false, false
	}
	for _, m := range *members {
		if m.Usable() && m.State.Up() {
			return true, true
		}
	}
	return false, true
}

// Begin counts a request that is given to the backend, End one that has been
// answered or has failed. Only by the owner of the shard; both on the same shard.
func (b *Backend) Begin(shard int) { add(&b.shards.of(b.set, shard).begun, 1) }

// End is the counterpart of Begin.
func (b *Backend) End(shard int) { add(&b.shards.of(b.set, shard).ended, 1) }

// load returns how many requests the backend has been given and how many of them
// are in flight.
func (b *Backend) load() (requests, inFlight uint64) {
	var ended uint64
	b.shards.each(func(s *backendShard) {
		// What has ended is read before what has begun, which is never less: so 0
		// means that there was a moment without any.
		ended += s.ended.Load()
		requests += s.begun.Load()
	})
	return requests, requests - ended
}

// quiet reports whether nothing is in flight.
func (b *Backend) quiet() bool {
	_, inFlight := b.load()
	return inFlight == 0
}

// Response counts an answer of the backend: its status and the time from the
// choice of the backend to the response head. Only by the owner of the shard.
func (b *Backend) Response(shard, code int, d time.Duration) {
	c := b.shards.of(b.set, shard)
	c.seconds.observe(d)
	c.codes.add(code, 0)
}

// Error counts a failure. Only by the owner of the shard.
func (b *Backend) Error(shard int, r Reason) {
	add(&b.shards.of(b.set, shard).errors[r], 1)
}

// Reason is why a backend failed a request: a fixed set of label values.
type Reason uint8

// The reasons.
const (
	ConnectFailed Reason = iota // refused or unreachable
	ConnectTimeout
	ResponseTimeout
	IdleTimeout
	TryTimeout     // the time for one attempt had passed
	RequestTimeout // the time for the whole request had passed
	Reset          // closed before the response was complete
	BadMessage     // the response was not valid HTTP
	reasons        = iota
)

// String returns the label value.
func (r Reason) String() string { return reasonLabels[r] }

var reasonLabels = [reasons]string{
	"connect_failed", "connect_timeout", "response_timeout", "idle_timeout", "per_try_timeout", "request_timeout", "reset", "bad_message",
}

// ClientReason is why a client, and no backend, failed a request or a connection: a fixed set of
// label values, none of which is a Reason's.
type ClientReason uint8

// The reasons.
const (
	HeadTimeout ClientReason = iota // the head of the request did not come in time
	BodyTimeout                     // the client stopped in its body
	ReadTimeout                     // it took nothing of its response
	TooSlow                         // it was waited for when the time for the whole request had passed

	// Of connections that end before there is a request.
	NoProxyHeader        // no header of the PROXY protocol, or a malformed one
	ProxyHeaderTimeout   // it did not come in time
	UntrustedProxyHeader // it came from somebody who is no trusted proxy
	clientReasons        = iota
)

// String returns the label value.
func (r ClientReason) String() string { return clientReasonLabels[r] }

var clientReasonLabels = [clientReasons]string{
	"head_timeout", "body_timeout", "read_timeout", "too_slow", "no_proxy_header", "proxy_header_timeout", "untrusted_proxy_header",
}

// ClientError counts a failure of a client. Only by the owner of the shard.
func (s *Set) ClientError(shard int, r ClientReason) {
	add(&s.shards[shard].clientErrors[r], 1)
}

// ConnState is a client connection's state for dataplane_connections.
type ConnState uint8

// The connection states.
const (
	Active     ConnState = iota // a request is being read or answered
	Idle                        // between requests
	Tunnel                      // upgraded
	connStates = iota
)

var connStateLabels = [connStates]string{"active", "idle", "tunnel"}

// Connections adds delta to the number of client connections in a state. Only by
// the owner of the shard; a connection stays on its shard.
func (s *Set) Connections(shard int, st ConnState, delta int) {
	c := &s.shards[shard].connections[st]
	c.Store(c.Load() + int64(delta))
}
