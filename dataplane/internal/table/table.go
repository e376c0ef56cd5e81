// Package table is the data plane's route table: immutable, compiled for fast
// matching, behind one atomic pointer that the request path loads once per
// request. What a table means is defined by package routetable; Match must agree
// with its plain matcher on every request. Protobuf types stop here.
//
// A table at rest is its encoded form and an index into it, without pointers:
// 100,000 endpoints are a few large blocks that the garbage collector need not
// look into. An endpoint becomes an Endpoint, with everything that is wanted on
// the request path at hand, when the first request meets it.
package table

import (
	"sync/atomic"
	"time"

	"reverseproxy/dataplane/internal/accesslog"
	"reverseproxy/dataplane/internal/backend"
	"reverseproxy/dataplane/internal/limit"
	"reverseproxy/dataplane/internal/metrics"
	"reverseproxy/proto/routetable"
)

// Table is immutable, but that endpoints come into use; any goroutine may use
// it.
type Table struct {
	Version            string
	Revision           uint64
	Port               uint16
	MetricsOnProxyPort bool
	Limits             Limits
	AccessLog          *accesslog.Settings // nil: there is none
	RequestID          bool                // every request has an X-Request-Id
	ProxyProtocol      bool                // connections begin with a header of the PROXY protocol
	TrustedProxies     *Prefixes           // whose X-Forwarded fields are believed; nil: nobody's
	ResolveInterval    time.Duration

	state  *State
	number uint64 // tables of one State, in the order in which they were made

	encoded []byte
	records []record // of the endpoints, sorted by name
	used    []atomic.Pointer[Endpoint]
	index   index
	cycles  cycles
	checked []uint32 // endpoints with an active check, by number
}

// Encoded returns the marshalled form. Nobody changes it.
func (t *Table) Encoded() []byte { return t.encoded }

// Limits are the client limits of the table.
type Limits struct {
	HeadBytes, Fields, TargetBytes int
	HeaderTimeout, IdleTimeout     time.Duration
	Connections                    int
}

// Endpoint is one endpoint in use, ready to forward. It is immutable. Tables in
// which nothing about the endpoint has changed share it.
type Endpoint struct {
	Name                            string
	ConnectTimeout, ResponseTimeout time.Duration
	IdleTimeout                     time.Duration
	RequestTimeout                  time.Duration // 0: none
	ReplaceHost                     bool
	Retry                           *Retry  // nil: nothing is sent again
	RequestHeaders, ResponseHeaders *Edits  // nil: none
	Answer                          *Answer // nil: a backend of the pool answers
	Pool                            *Pool
	Admission                       *Admission    // nil: there are none
	ActiveCheck                     *ActiveCheck  // nil: none
	PassiveCheck                    *PassiveCheck // nil: none
	FailOn5xx                       bool          // a status of 500 or more is a failure of the backend
	Metrics                         *metrics.Endpoint

	gate     *limit.Gate // of the name, whether it limits anything now or has before
	exact    bool
	segments uint16              // of a prefix
	rewrite  *routetable.Rewrite // nil: none
	// What it asks for beyond host and path.
	methods []string // none: any
	headers []header
}

// header is a condition: one field line called name has this value.
type header struct{ name, value string }

// Backend is one URL of a pool.
type Backend struct {
	URL    string
	Host   string // host[:port] for the Host field, as in the URL
	Weight uint32
	Backup bool // only for when nobody else can be used
	// MaxRequests is how many may be in flight at an address; 0: any number.
	MaxRequests uint32
	path        uint16 // where the URL's path ends
	query       uint16 // where its query starts
	Metrics     *metrics.Backend
	// Name is what stands in the URL for addresses that have to be looked up; nil:
	// the URL has the address, or localhost.
	Name    *backend.Name
	address string
}

// Address returns host:port of the URL.
func (b *Backend) Address() string { return b.address }

// addresses returns what to connect to. While a name has not been looked up yet it
// is the name, as which whoever connects looks it up: no request fails because
// its endpoint is new. A name that has never been found has none.
func (b *Backend) addresses() []string {
	if b.Name != nil {
		if found, known := b.Name.Addresses(); known {
			return found
		}
	}
	return []string{b.address}
}

// Endpoint returns the endpoint with a name, and brings it into use; nil when
// there is none.
func (t *Table) Endpoint(name string) *Endpoint {
	if n, ok := t.find(name); ok {
		return t.use(n)
	}
	return nil
}

// Has reports whether requests of the endpoint that a pool is of go by that pool. It
// brings nothing into use: what is not has had no requests.
func (t *Table) Has(p *Pool) bool {
	n, ok := t.find(p.endpoint)
	if !ok {
		return false
	}
	e := t.used[n].Load()
	return e == nil || e.Pool == p
}

// AppendTarget appends the request target that b is sent, by the rules of
// routetable.Target. Only after a Match of q that returned e and a Rewrite that
// returned true, while q's Path is what it was then.
func (e *Endpoint) AppendTarget(dst []byte, b *Backend, q *Query) []byte {
	own, first := b.URL[len("http://")+len(b.Host):b.path], b.URL[b.query:]
	if e.rewrite != nil {
		return routetable.AppendTarget(dst, own, first, false, 0, q.rewritten, q.Query, q.HasQuery)
	}
	return routetable.AppendTarget(dst, own, first, e.exact, int(e.segments), q.Path, q.Query, q.HasQuery)
}

// Live is the one pointer to the table in force.
type Live struct{ p atomic.Pointer[Table] }

// Load returns the table in force, nil before there is one.
func (l *Live) Load() *Table { return l.p.Load() }

// Store puts a table in force.
func (l *Live) Store(t *Table) { l.p.Store(t) }
