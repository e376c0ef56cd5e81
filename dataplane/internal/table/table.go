// Package table is the data plane's route table: immutable, compiled for fast
// matching, behind one atomic pointer that the request path loads once per
// request. What a table means is defined by package routetable; Match must agree
// with its plain matcher on every request. Protobuf types stop here.
package table

import (
	"sync/atomic"
	"time"

	"reverseproxy/dataplane/internal/backend"
	"reverseproxy/dataplane/internal/metrics"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// Table is immutable; any goroutine may use it.
type Table struct {
	Version            string
	Revision           uint64
	Port               uint16
	MetricsOnProxyPort bool
	Limits             Limits
	Endpoints          []*Endpoint // sorted by name
}

// Limits are the client limits of the table.
type Limits struct {
	HeadBytes, Fields, TargetBytes int
	HeaderTimeout, IdleTimeout     time.Duration
	Connections                    int
}

// Endpoint is one endpoint, ready to forward.
type Endpoint struct {
	Name                            string
	ConnectTimeout, ResponseTimeout time.Duration
	IdleTimeout                     time.Duration
	ReplaceHost                     bool
	Pool                            *Pool
	Metrics                         *metrics.Endpoint
}

// Backend is one URL of a pool.
type Backend struct {
	URL     string
	Host    string // host[:port] for the Host field, as in the URL
	State   *backend.State
	Metrics *metrics.Backend
}

// Pool hands out backends by smooth weighted round robin, exactly, over all
// goroutines.
type Pool struct{ Backends []*Backend }

// Next returns the next backend of the schedule, nil when every weight is 0.
func (p *Pool) Next() *Backend { panic("not yet") }

// State is what outlives tables; New finds cursors, backends and counters in it.
type State struct {
	Backends *backend.Registry
	Metrics  *metrics.Set
}

// New validates and compiles a wire table. Pools that are unchanged from prev
// (nil for the first table) continue their cycle.
func New(rt *routetablev1.RouteTable, version string, revision uint64, prev *Table, s State) (*Table, error) {
	panic("not yet")
}

// Query is what matching looks at. The caller keeps it and uses it again; its
// private part is scratch space, so that Match does not allocate.
type Query struct {
	Method, Host, Path []byte // Host as the client sent it, may have a port, may be empty; Path raw
	Query              []byte
	HasQuery           bool
	Header             Headers
}

// Headers looks up a request's header fields.
type Headers interface {
	// HasValue reports whether one of the field lines called name (lower case)
	// has exactly this value.
	HasValue(name, value string) bool
}

// Result is what Match found.
type Result struct {
	Endpoint *Endpoint // nil: none takes the request
	Allow    string    // not empty: 405, and the Allow field's value
	BadPath  bool      // the path is invalid (400)
}

// Match finds the endpoint that takes the request. It does not allocate.
func (t *Table) Match(q *Query) Result { panic("not yet") }

// AppendTarget appends the request target that b is sent. Only after a Match of
// q that returned e.
func (e *Endpoint) AppendTarget(dst []byte, b *Backend, q *Query) []byte { panic("not yet") }

// Live is the one pointer to the table in force.
type Live struct{ p atomic.Pointer[Table] }

// Load returns the table in force, nil before there is one.
func (l *Live) Load() *Table { return l.p.Load() }

// Store puts a table in force.
func (l *Live) Store(t *Table) { l.p.Store(t) }
