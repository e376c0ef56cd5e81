package table

import (
	"errors"
	"fmt"
	"math"
	"sync/atomic"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"reverseproxy/dataplane/internal/accesslog"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// New checks and compiles a marshalled route table, which it keeps: nobody may
// change its bytes afterwards. The error holds a *routetable.Problem for each
// broken rule, or says that the content has not the version that was announced.
//
// Nothing in s is made before endpoints of the table come into use.
func New(encoded []byte, version string, revision uint64, s *State) (*Table, error) {
	if len(encoded) > math.MaxInt32 {
		return nil, errors.New("the route table is larger than 2 GiB")
	}
	c := newCompiler(encoded)
	// Rules before the version: a table with fields of a later release has a
	// version that cannot be computed here, and the unknown field is the better
	// reason.
	rest, computed, err := routetable.Scan(encoded, c.endpoint)
	if err != nil {
		return nil, err
	}
	l := rest.GetLimits()
	t := &Table{
		Version:            version,
		Revision:           revision,
		Port:               uint16(rest.GetPort()),
		MetricsOnProxyPort: !rest.GetHideMetricsOnProxyPort(),
		AccessLog:          accessLog(rest.GetAccessLog()),
		RequestID:          rest.GetRequestId(),
		ProxyProtocol:      rest.GetProxyProtocol(),
		TrustedProxies:     newPrefixes(rest.GetTrustedProxies()),
		ResolveInterval:    routetable.DefaultResolveInterval,
		Limits: Limits{
			HeadBytes:     int(l.GetMaxHeadBytes()),
			Fields:        int(l.GetMaxHeaderCount()),
			TargetBytes:   int(l.GetMaxUriBytes()),
			HeaderTimeout: l.GetHeaderTimeout().AsDuration(),
			IdleTimeout:   l.GetIdleTimeout().AsDuration(),
			Connections:   int(l.GetMaxConnections()),
		},
		state:   s,
		number:  s.tables.Add(1),
		encoded: encoded,
		records: c.records,
		used:    make([]atomic.Pointer[Endpoint], len(c.records)),
		cycles:  c.cycles,
		checked: c.checked,
	}
	if d := rest.GetResolveInterval(); d != nil {
		t.ResolveInterval = d.AsDuration()
	}
	if err := t.checkTies(t.buildIndex(c.hosts, c.links)); err != nil {
		return nil, err
	}
	if computed != version {
		return nil, fmt.Errorf("the content has version %s, it was announced as %s", computed, version)
	}
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
	encoded []byte
	records []record
	hosts   []host
	numbers map[string]uint32 // of host patterns
	links   []link
	cycles  cycles
	checked []uint32 // see Table
}

func newCompiler(encoded []byte) *compiler {
	n := 0
	for range routetable.Endpoints(encoded) {
		n++
	}
	return &compiler{
		encoded: encoded,
		records: make([]record, 0, n),
		hosts:   make([]host, 1), // anyHost
		numbers: map[string]uint32{},
		links:   make([]link, 0, n),
		cycles:  cycles{},
	}
}

// endpoint takes the next endpoint, which is valid and lies at encoded[start:end].
func (c *compiler) endpoint(e *routetablev1.Endpoint, start, end int) {
	number := uint32(len(c.records))
	r := record{start: uint32(start), size: uint32(end - start), conditions: uint32(len(e.GetHeaders()))}
	if len(e.GetMethods()) > 0 {
		r.conditions++
	}
	path, pathField := e.GetExact(), exactField
	if p, ok := e.GetPath().(*routetablev1.Endpoint_Prefix); ok {
		path, pathField, r.prefix = p.Prefix, prefixField, true
	}
	r.nameSize, r.pathSize = uint8(len(e.GetName())), uint16(len(path))
	hosts := e.GetHosts()
	_ = routetable.Walk(c.encoded[start:end], func(f routetable.Field) bool {
		at := uint32(start + f.Value)
		switch f.Number {
		case nameField:
			r.name = at // of several the last counts
		case pathField:
			r.path = at
		case hostsField:
			c.place(number, c.host(hosts[0], at))
			hosts = hosts[1:]
		}
		return true
	})
	if len(e.GetHosts()) == 0 {
		c.place(number, anyHost)
	}
	c.records = append(c.records, r)
	if e.GetActiveCheck() != nil {
		c.checked = append(c.checked, number)
	}
	c.cycles.add(e.GetPool())
}

// The numbers of fields of an endpoint in routetable.proto.
const (
	nameField, exactField, prefixField, hostsField, poolField protowire.Number = 1, 2, 3, 4, 7
	urlField                                                  protowire.Number = 1 // of a backend
)

// record is an endpoint at rest: where it lies in the encoded table, and what
// finding it needs. There are many, so it has no pointers and no gaps.
type record struct {
	start, size uint32 // of the message
	name, path  uint32 // where they start
	conditions  uint32 // beyond host and path; all methods together are one
	pathSize    uint16
	nameSize    uint8
	prefix      bool
}

// Len returns the number of endpoints.
func (t *Table) Len() int { return len(t.records) }

func (t *Table) wire(i uint32) []byte {
	r := &t.records[i]
	return t.encoded[r.start : r.start+r.size]
}

func (t *Table) name(i uint32) []byte {
	r := &t.records[i]
	return t.encoded[r.name : r.name+uint32(r.nameSize)]
}

// message decodes an endpoint.
func (t *Table) message(i uint32) *routetablev1.Endpoint {
	e := new(routetablev1.Endpoint)
	if err := proto.Unmarshal(t.wire(i), e); err != nil {
		panic("an endpoint cannot be decoded a second time: " + err.Error())
	}
	return e
}

// checkTies checks endpoints, ascending, that share a place and their number of
// conditions with others.
func (t *Table) checkTies(numbers []int) error {
	endpoints := make([]*routetablev1.Endpoint, len(numbers))
	for i, n := range numbers {
		endpoints[i] = t.message(uint32(n))
	}
	return routetable.CheckTies(endpoints, numbers)
}
