package table

import (
	"encoding/binary"
	"sync/atomic"

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
	c := compiler{state: s, schedules: map[string][]uint32{}}
	if prev != nil {
		c.prev = prev.Endpoints
	}
	for i, e := range rt.GetEndpoints() {
		t.Endpoints[i] = c.endpoint(e)
	}
	t.index = newIndex(rt.GetEndpoints(), t.Endpoints)
	return t, nil
}

// compiler is one run of New.
type compiler struct {
	state State
	prev  []*Endpoint // of the table before, from the next name on
	// schedules by weights: many pools of a table have the same.
	schedules map[string][]uint32
	key       []byte // scratch
}

func (c *compiler) endpoint(w *routetablev1.Endpoint) *Endpoint {
	e := &Endpoint{
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
	if len(w.GetMethods()) > 0 {
		e.methods = append([]string(nil), w.GetMethods()...)
	}
	for _, m := range w.GetHeaders() {
		e.headers = append(e.headers, header{m.GetName(), m.GetValue()})
	}
	e.Pool = c.pool(e, w.GetPool())
	return e
}

func (c *compiler) pool(e *Endpoint, list []*routetablev1.Backend) *Pool {
	p := &Pool{Backends: make([]*Backend, len(list))}
	backends := make([]Backend, len(list)) // one allocation for all
	weights := make([]uint32, len(list))
	for i, w := range list {
		u, err := routetable.ParseBackendURL(w.GetUrl())
		if err != nil {
			panic("a valid table has an invalid URL: " + err.Error())
		}
		b := &backends[i]
		*b = Backend{
			URL:     w.GetUrl(),
			Host:    u.Authority(),
			Weight:  w.GetWeight(),
			State:   c.state.Backends.State(u.Address()),
			Metrics: e.Metrics.Backend(w.GetUrl()),
			url:     u,
		}
		b.Metrics.Track(b.State)
		p.Backends[i] = b
		weights[i] = b.Weight
		if b.Weight > 0 {
			p.taking = append(p.taking, b)
		}
	}
	if len(p.taking) == len(p.Backends) {
		p.taking = p.Backends
	}
	if routetable.Slots(weights) != len(p.taking) {
		p.schedule = c.schedule(weights)
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

func (c *compiler) schedule(weights []uint32) []uint32 {
	c.key = c.key[:0]
	for _, w := range weights {
		c.key = binary.BigEndian.AppendUint32(c.key, w)
	}
	s, ok := c.schedules[string(c.key)]
	if !ok {
		s = routetable.Schedule(weights)
		c.schedules[string(c.key)] = s
	}
	return s
}
