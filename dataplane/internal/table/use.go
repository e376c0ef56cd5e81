package table

import (
	"bytes"
	"iter"
	"sync"
	"sync/atomic"

	"reverseproxy/dataplane/internal/backend"
	"reverseproxy/dataplane/internal/limit"
	"reverseproxy/dataplane/internal/metrics"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// eager is up to how many endpoints all come into use with their table: every
// series of theirs is exposed from the start, so that a first increase is seen as
// one. Of larger tables only those endpoints show in the metrics that have met a
// request; the others would be most of a page of many megabytes.
const eager = 1000

// State is what outlives tables: what is known about backends, the counters, and
// the cycles of pools. Endpoints find theirs in it when they come into use. Its
// methods may be called from several goroutines.
type State struct {
	Backends *backend.Registry
	Metrics  *metrics.Set
	// Fleet is what rates are divided by.
	Fleet limit.Fleet
	// Place is where the cycles of pools begin that are new here: the data planes of a
	// fleet, which have one each, do not all begin with the same backend.
	Place   atomic.Uint32
	Watcher Watcher // nil: nobody is told
	// OnPanic is called when nobody in the pool of an endpoint is usable any more, and
	// when that has ended; refuses: requests are refused meanwhile, instead of given to
	// all. It must not wait. nil: nobody is told.
	OnPanic func(endpoint string, panicking, refuses bool)

	tables atomic.Uint64 // made so far

	telling sync.Mutex // held while the Watcher is told, and taken before mu

	mu sync.Mutex // held while an endpoint comes into use; guards the following
	// known are the endpoints in use, by name, each of the newest table in which
	// it was used.
	known map[string]*Endpoint
	// retained is the number of the table that was given to Retain last.
	retained uint64
}

// use returns an endpoint.
func (t *Table) use(i uint32) *Endpoint {
	if e := t.used[i].Load(); e != nil {
		return e
	}
	return t.firstUse(i)
}

// firstUse makes an endpoint at rest one that is in use.
func (t *Table) firstUse(i uint32) *Endpoint {
	e, addresses := t.unfold(t.message(i))
	used, news := t.enter(i, e, addresses)
	if news {
		t.state.tellWatcher(e.Name)
	}
	return used
}

// enter brings an endpoint into use, unless it is already, and returns the one in
// use. news: it takes the place of the one of its name.
func (t *Table) enter(i uint32, e *Endpoint, addresses []string) (used *Endpoint, news bool) {
	s := t.state
	s.mu.Lock()
	defer s.mu.Unlock()
	if other := t.used[i].Load(); other != nil {
		return other, false // somebody else was faster
	}
	if t.number < s.retained {
		// Of a request that has taken so long from the table to the endpoint that
		// the next table is in force. Nobody will look for its counters.
		e.join(s, s.Metrics.Detached(e.Name), addresses, nil)
		e.joinAdmission(s, s.known[e.Name])
		t.used[i].Store(e)
		return e, false
	}
	e.join(s, s.Metrics.Endpoint(e.Name), addresses, s.known[e.Name])
	e.joinAdmission(s, s.known[e.Name])
	if s.known == nil {
		s.known = map[string]*Endpoint{}
	}
	s.known[e.Name] = e
	t.used[i].Store(e)
	if t.number == s.retained {
		e.enforce()
	}
	return e, true
}

// unfold makes an endpoint that has not joined the others yet, and the addresses
// of its backends.
func (t *Table) unfold(w *routetablev1.Endpoint) (e *Endpoint, addresses []string) {
	e = &Endpoint{
		Name:            w.GetName(),
		ConnectTimeout:  w.GetTimeouts().GetConnect().AsDuration(),
		ResponseTimeout: w.GetTimeouts().GetResponse().AsDuration(),
		IdleTimeout:     w.GetTimeouts().GetIdle().AsDuration(),
		RequestTimeout:  w.GetTimeouts().GetRequest().AsDuration(),
		ReplaceHost:     w.GetReplaceHost(),
		Admission:       admissionOf(w),
		Retry:           newRetry(w.GetRetry()),
		ActiveCheck:     activeCheck(w.GetActiveCheck()),
		PassiveCheck:    passiveCheck(w.GetPassiveCheck()),
		FailOn5xx:       w.GetPassiveCheck().GetOn_5Xx(),
		methods:         w.GetMethods(),
	}
	if p, ok := w.GetPath().(*routetablev1.Endpoint_Prefix); ok {
		e.segments = uint16(routetable.Segments(p.Prefix))
	} else {
		e.exact = true
	}
	var err error
	if e.rewrite, err = routetable.NewRewrite(w.GetRewrite(), !e.exact); err != nil {
		panic("a valid table has an invalid rewrite: " + err.Error())
	}
	e.RequestHeaders, e.ResponseHeaders = newEdits(w.GetRequestHeaders()), newEdits(w.GetResponseHeaders())
	e.Answer = newAnswer(w, e.ResponseHeaders)
	for _, m := range w.GetHeaders() {
		e.headers = append(e.headers, header{m.GetName(), m.GetValue()})
	}
	backends := make([]Backend, len(w.GetPool()))
	var few [16]uint32
	e.Pool = &Pool{
		Backends: make([]*Backend, len(backends)), Policy: policies[w.GetLoadBalancing().GetPolicy()], Key: keyOf(w.GetLoadBalancing().GetKey()),
		refuse: w.GetRefuseWhenUnhealthy(), slowStart: w.GetLoadBalancing().GetSlowStart().AsDuration(), endpoint: e.Name, cycle: t.cycles.of(appendWeights(few[:0], w.GetPool())),
	}
	addresses = make([]string, len(backends))
	for i, b := range w.GetPool() {
		u, err := routetable.ParseBackendURL(b.GetUrl())
		if err != nil {
			panic("a valid table has an invalid URL: " + err.Error())
		}
		backends[i] = Backend{
			URL:         b.GetUrl(),
			Host:        u.Authority(),
			Weight:      b.GetWeight(),
			Backup:      b.GetBackup(),
			MaxRequests: b.GetMaxRequests(),
			path:        uint16(len("http://") + len(u.Authority()) + len(u.Path())),
			query:       uint16(len(b.GetUrl()) - len(u.Query())),
		}
		e.Pool.Backends[i], addresses[i] = &backends[i], u.Address()
	}
	return e, addresses
}

var policies = map[routetablev1.Policy]Policy{
	routetablev1.Policy_POLICY_LEAST_REQUEST:   LeastRequest,
	routetablev1.Policy_POLICY_RANDOM:          Random,
	routetablev1.Policy_POLICY_CONSISTENT_HASH: ConsistentHash,
}

var keyKinds = map[routetablev1.KeyKind]KeyKind{
	routetablev1.KeyKind_KEY_KIND_CLIENT_IP: ClientIP,
	routetablev1.KeyKind_KEY_KIND_HEADER:    Header,
	routetablev1.KeyKind_KEY_KIND_COOKIE:    Cookie,
	routetablev1.KeyKind_KEY_KIND_PATH:      Path,
}

func keyOf(k *routetablev1.Key) Key { return Key{keyKinds[k.GetKind()], k.GetName()} }

// join connects an endpoint with what outlives tables. before is the one of its name
// that was in use before, nil if there was none.
func (e *Endpoint) join(s *State, counters *metrics.Endpoint, addresses []string, before *Endpoint) {
	e.Metrics = counters
	counters.TrackRetries(e.Retry != nil)
	if before != nil {
		e.Retry.share(before.Retry)
	}
	if before != nil && before.Pool.same(e.Pool) {
		e.Pool = before.Pool
		return
	}
	p := e.Pool
	p.state, p.metrics = s, counters
	for i, b := range p.Backends {
		b.address, b.Name, b.Metrics = addresses[i], s.Backends.Name(addresses[i]), counters.Backend(b.URL)
		p.names = p.names || b.Name != nil
	}
	turns := new(atomic.Uint64)
	turns.Store(uint64(s.Place.Load()))
	var known []*Member
	if before != nil {
		if before.Pool.sameCycle(p) {
			turns = before.Pool.view.Load().turns
		}
		known = before.Pool.Members()
	}
	p.gather(known, before != nil)
	p.view.Store(p.look(turns))
	p.tell()
}

// uses reports whether a pool is that of an endpoint in use, and has not been replaced.
func (s *State) uses(p *Pool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.known[p.endpoint]
	return e != nil && e.Pool == p
}

// identity is what a member of an endpoint is known by.
type identity struct{ url, address string }

func (m *Member) identity() identity { return identity{m.URL, m.Health.State.Addr()} }

// Warm brings those endpoints into use that are in prev (nil: none), those with an
// active check, and all of a table that is not large, so that requests find them so
// when the table comes into force.
func (t *Table) Warm(prev *Table) {
	if t.Len() <= eager {
		for i := range t.records {
			t.use(uint32(i))
		}
		return
	}
	if prev != nil {
		t.inherit(prev)
	}
	for _, n := range t.checked {
		t.use(n)
	}
}

// inherit brings those endpoints into use that are in prev.
func (t *Table) inherit(prev *Table) {
	for i := range prev.used {
		e := prev.used[i].Load()
		if e == nil {
			continue
		}
		n, ok := t.find(e.Name)
		switch {
		case !ok:
		case bytes.Equal(t.wire(n), prev.wire(uint32(i))):
			t.used[n].CompareAndSwap(nil, e)
		default:
			t.use(n)
		}
	}
}

// find returns the number of the endpoint with a name.
func (t *Table) find(name string) (number uint32, ok bool) {
	lo, hi := uint32(0), uint32(t.Len())
	for lo < hi {
		if m := lo + (hi-lo)/2; string(t.name(m)) < name {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo, lo < uint32(t.Len()) && string(t.name(lo)) == name
}

// Retain forgets the endpoints, counters and backends that t, the table in force
// (nil: none), does not name. The request path does not wait for it.
func (s *State) Retain(t *Table) {
	if t == nil {
		t = &Table{}
	}
	s.mu.Lock()
	s.retained = max(s.retained, t.number)
	known := make([]*Endpoint, 0, len(s.known))
	for _, e := range s.known {
		known = append(known, e)
	}
	s.mu.Unlock()
	urls := map[string]bool{}
	for _, e := range known {
		s.retainEndpoint(t, e, urls)
	}
	if s.Watcher != nil && t.ResolveInterval > 0 {
		s.Watcher.ResolveEvery(t.ResolveInterval)
	}
	gone := s.Backends.Addresses()
	t.without(gone)
	s.Backends.Forget(gone)
}

// retainEndpoint forgets what t does not name of an endpoint in use. urls is
// scratch space.
func (s *State) retainEndpoint(t *Table, e *Endpoint, urls map[string]bool) {
	n, found := t.find(e.Name)
	if !found {
		s.mu.Lock()
		delete(s.known, e.Name)
		s.Metrics.Forget(e.Name)
		s.mu.Unlock()
		if e.gate != nil {
			e.gate.Set(0, 0) // who waits there is routed by t
		}
		s.tellWatcher(e.Name)
		return
	}
	current := t.used[n].Load()
	if current != nil && current != e {
		// e is of a table that did not come into force.
		s.mu.Lock()
		s.known[e.Name] = current
		s.mu.Unlock()
		current.Pool.Refresh()
		s.tellWatcher(e.Name)
	}
	clear(urls)
	if current != nil {
		current.enforce()
		for _, b := range current.Pool.Backends {
			urls[b.URL] = true
		}
	} else {
		for url := range t.urls(n) {
			urls[string(url)] = true
		}
	}
	e.Metrics.Retain(func(url string) bool { return urls[url] })
}

// without takes the addresses of the table's backends out of a set.
func (t *Table) without(addresses map[string]bool) {
	var address []byte
	for i := range t.records {
		if len(addresses) == 0 {
			return
		}
		for url := range t.urls(uint32(i)) {
			address = routetable.AppendAddress(address[:0], url)
			delete(addresses, string(address))
		}
	}
}

// urls yields the backends of an endpoint at rest.
func (t *Table) urls(i uint32) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		wire := t.wire(i)
		_ = routetable.Walk(wire, func(f routetable.Field) bool {
			if f.Number != poolField {
				return true
			}
			var url []byte
			backend := wire[f.Value:f.End]
			_ = routetable.Walk(backend, func(f routetable.Field) bool {
				if f.Number == urlField {
					url = backend[f.Value:f.End]
				}
				return true
			})
			return yield(url)
		})
	}
}

// Entry is one backend in a description of a table.
type Entry struct {
	URL    string
	Weight uint32
}

// Description is what an endpoint does with requests.
type Description struct {
	Pool []Entry
	// Answer is what an endpoint without a pool answers: a status, and the location of
	// a redirect. Empty: a backend does.
	Answer string
}

// Describe yields the endpoints by name. It does not bring them into use.
func (t *Table) Describe() iter.Seq2[string, Description] {
	return func(yield func(string, Description) bool) {
		for i := range t.records {
			w := t.message(uint32(i))
			d := Description{Pool: make([]Entry, len(w.GetPool())), Answer: describeAnswer(w)}
			for i, b := range w.GetPool() {
				d.Pool[i] = Entry{b.GetUrl(), b.GetWeight()}
			}
			if !yield(w.GetName(), d) {
				return
			}
		}
	}
}
