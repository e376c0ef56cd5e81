// Package metrics counts what the data plane does. Counters are sharded: each
// event loop owns one shard and is its only writer, so that the request path
// touches no shared cache line; the scraper sums the shards. Identity is the
// endpoint's name and the backend's URL: counters survive route tables, and the
// series of what has left the table are not exposed any more.
package metrics

import "time"

// Set is all counters of a data plane.
type Set struct{}

// NewSet returns a set with the given number of shards.
func NewSet(shards int) *Set { panic("not yet") }

// Endpoint returns the counters of an endpoint by name, creating them.
func (s *Set) Endpoint(name string) *Endpoint { panic("not yet") }

// None returns the counters of requests that no endpoint takes (endpoint="none").
func (s *Set) None() *Endpoint { panic("not yet") }

// Retain forgets endpoints and backends that are not in the live table.
func (s *Set) Retain(keep func(endpoint, backend string) bool) { panic("not yet") }

// Totals returns requests answered and those failed by the proxy itself with a
// 5xx status, since start, including forgotten endpoints.
func (s *Set) Totals() (requests, failures uint64) { panic("not yet") }

// Endpoint counts for one endpoint.
type Endpoint struct{}

// Backend returns the counters of a backend of this endpoint, creating them.
func (e *Endpoint) Backend(url string) *Backend { panic("not yet") }

// Method is a label value from a fixed set: the known methods and "other".
type Method uint8

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
func (e *Endpoint) Begin(shard int) { panic("not yet") }

// End is the counterpart of Begin.
func (e *Endpoint) End(shard int, r *Request) { panic("not yet") }

// Backend counts for one backend of one endpoint.
type Backend struct{}

// Reason is why a backend failed a request: a fixed set of label values.
type Reason uint8

// The reasons.
const (
	ConnectFailed Reason = iota // refused or unreachable
	ConnectTimeout
	ResponseTimeout
	IdleTimeout
	Reset      // closed before the response was complete
	BadMessage // the response was not valid HTTP
)

// Response counts an answer of the backend: its status and the time from the
// choice of the backend to the response head.
func (b *Backend) Response(shard, code int, d time.Duration) { panic("not yet") }

// Error counts a failure.
func (b *Backend) Error(shard int, r Reason) { panic("not yet") }

// ConnState is a client connection's state for dataplane_connections.
type ConnState uint8

// The connection states.
const (
	Active ConnState = iota // a request is being read or answered
	Idle                    // between requests
	Tunnel                  // upgraded
)

// Connections adds delta to the number of client connections in a state.
func (s *Set) Connections(shard int, st ConnState, delta int) { panic("not yet") }
