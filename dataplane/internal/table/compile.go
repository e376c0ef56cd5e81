package table

import (
	"encoding/binary"
	"slices"
	"sync/atomic"

	"reverseproxy/dataplane/internal/accesslog"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// New validates and compiles a wire table. Pools that are unchanged from prev
// (nil for the first table) continue their cycle.
//
// It makes counters and backend states for the table's endpoints in s: retain
// those of the table in force afterwards, also when the new one is not put in
// force. Nothing of rt is changed or, but for strings, kept.
func New(rt *routetablev1.RouteTable, version string, revision uint64, prev *Table, s State) (*Table, error) {
	if err := routetable.Validate(rt); err != nil {
		return nil, err
	}
	l := rt.GetLimits()
	t := &Table{
		Version:            version,
		Revision:           revision,
		Port:               uint16(rt.GetPort()),
		MetricsOnProxyPort: !rt.GetHideMetricsOnProxyPort(),
		AccessLog:          accessLog(rt.GetAccessLog()),
		RequestID:          rt.GetRequestId(),
		Limits: Limits{
			HeadBytes:     int(l.GetMaxHeadBytes()),
			Fields:        int(l.GetMaxHeaderCount()),
			TargetBytes:   int(l.GetMaxUriBytes()),
			HeaderTimeout: l.GetHeaderTimeout().AsDuration(),
			IdleTimeout:   l.GetIdleTimeout().AsDuration(),
			Connections:   int(l.GetMaxConnections()),
		},
		Endpoints: make([]*Endpoint, len(rt.GetEndpoints())),
	}
	c := newCompiler(rt, prev, s)
	for i, e := range rt.GetEndpoints() {
		t.Endpoints[i] = c.endpoint(e)
	}
	t.index = newIndex(rt.GetEndpoints(), t.Endpoints)
	return t, nil
}

// accessLog returns nil when there is none.
func accessLog(w *routetablev1.AccessLog) *accesslog.Settings {
	if w == nil {
		return nil
	}
	s := &accesslog.Settings{Path: w.GetPath(), Format: accesslog.JSON, PerMillion: w.GetSamplePerMillion()}
	switch w.GetFormat() {
	case routetablev1.AccessLogFormat_ACCESS_LOG_FORMAT_COMMON:
		s.Format = accesslog.Common
	case routetablev1.AccessLogFormat_ACCESS_LOG_FORMAT_COMBINED:
		s.Format = accesslog.Combined
	}
	return s
}

// compiler is one run of New.
type compiler struct {
	state State
	prev  []*Endpoint // of the table before, from the next name on
	// schedules by weights: many pools of a table have the same.
	schedules map[string]*[]uint32
	key       []byte // scratch

	// The parts of the table come from one allocation per kind: no space is lost
	// to rounding, and a table is forgotten as a whole anyhow.
	endpoints []Endpoint
	pools     []Pool
	backends  []Backend
	pointers  []*Backend
}

func newCompiler(rt *routetablev1.RouteTable, prev *Table, s State) *compiler {
	n := 0
	for _, e := range rt.GetEndpoints() {
		n += len(e.GetPool())
	}
	c := &compiler{
		state:     s,
		schedules: map[string]*[]uint32{},
		endpoints: make([]Endpoint, len(rt.GetEndpoints())),
		pools:     make([]Pool, len(rt.GetEndpoints())),
		backends:  make([]Backend, n),
		pointers:  make([]*Backend, n),
	}
	if prev != nil {
		c.prev = prev.Endpoints
	}
	return c
}

// next takes the first n elements of a slice.
func next[T any](from *[]T, n int) []T {
	taken := (*from)[:n:n]
	*from = (*from)[n:]
	return taken
}

func (c *compiler) endpoint(w *routetablev1.Endpoint) *Endpoint {
	e := &next(&c.endpoints, 1)[0]
	*e = Endpoint{
		Name:            w.GetName(),
		ConnectTimeout:  w.GetTimeouts().GetConnect().AsDuration(),
		ResponseTimeout: w.GetTimeouts().GetResponse().AsDuration(),
		IdleTimeout:     w.GetTimeouts().GetIdle().AsDuration(),
		ReplaceHost:     w.GetReplaceHost(),
		Metrics:         c.state.Metrics.Endpoint(w.GetName()),
	}
	if p, ok := w.GetPath().(*routetablev1.Endpoint_Prefix); ok {
		e.segments = uint16(routetable.Segments(p.Prefix))
	} else {
		e.exact = true
	}
	if len(w.GetMethods())+len(w.GetHeaders()) > 0 {
		e.conditions = &conditions{methods: slices.Clone(w.GetMethods())}
		for _, m := range w.GetHeaders() {
			e.conditions.headers = append(e.conditions.headers, header{m.GetName(), m.GetValue()})
		}
	}
	e.Pool = c.pool(e, w.GetPool())
	return e
}

func (c *compiler) pool(e *Endpoint, list []*routetablev1.Backend) *Pool {
	p := &next(&c.pools, 1)[0]
	p.Backends = next(&c.pointers, len(list))
	uniform := true
	for i, w := range list {
		b := &next(&c.backends, 1)[0]
		c.backend(b, e, w)
		p.Backends[i] = b
		uniform = uniform && b.Weight > 0 && b.Weight == list[0].GetWeight()
	}
	if !uniform {
		p.schedule = c.schedule(list)
	}
	// Both lists are sorted by name.
	for len(c.prev) > 0 && c.prev[0].Name < e.Name {
		c.prev = c.prev[1:]
	}
	if len(c.prev) > 0 && c.prev[0].Name == e.Name && p.same(c.prev[0].Pool) {
		p.cursor = c.prev[0].Pool.cursor
	} else {
		p.cursor = new(atomic.Uint64)
	}
	return p
}

func (c *compiler) backend(b *Backend, e *Endpoint, w *routetablev1.Backend) {
	u, err := routetable.ParseBackendURL(w.GetUrl())
	if err != nil {
		panic("a valid table has an invalid URL: " + err.Error())
	}
	*b = Backend{
		URL:     w.GetUrl(),
		Host:    u.Authority(),
		Weight:  w.GetWeight(),
		path:    uint16(len("http://") + len(u.Authority()) + len(u.Path())),
		query:   uint16(len(w.GetUrl()) - len(u.Query())),
		State:   c.state.Backends.State(u.Address()),
		Metrics: e.Metrics.Backend(w.GetUrl()),
	}
	b.Metrics.Track(b.State)
}

func (c *compiler) schedule(list []*routetablev1.Backend) *[]uint32 {
	c.key = c.key[:0]
	for _, b := range list {
		c.key = binary.BigEndian.AppendUint32(c.key, b.GetWeight())
	}
	s, ok := c.schedules[string(c.key)]
	if !ok {
		weights := make([]uint32, len(list))
		for i, b := range list {
			weights[i] = b.GetWeight()
		}
		cycle := routetable.Schedule(weights)
		s = &cycle
		c.schedules[string(c.key)] = s
	}
	return s
}
