package fleet_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"reverseproxy/controlplane/internal/fleet"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

const (
	whole = routetablev1.Encoding_ENCODING_GZIP
	delta = routetablev1.Encoding_ENCODING_DELTA_GZIP
)

// changed returns a table in which endpoints of another one have another backend.
func changed(rt *routetablev1.RouteTable, numbers ...int) *routetablev1.RouteTable {
	rt = proto.CloneOf(rt)
	for _, n := range numbers {
		rt.Endpoints[n].Pool[0].Url += "0"
	}
	return rt
}

// equal fails unless the tables are. Comparing is quick, describing a difference is not.
func equal(t *testing.T, want, got *routetablev1.RouteTable) {
	t.Helper()
	if !proto.Equal(want, got) {
		t.Fatalf("table (-want +got):\n%s", cmp.Diff(want, got, protocmp.Transform()))
	}
}

// merger plays a data plane that understands deltas and keeps its table in encoded form.
type merger struct {
	*player
	version string
	encoded []byte
}

// joinMerging opens a stream for a data plane that serves the table, or none.
func (s *server) joinMerging(t *testing.T, id string, serves *routetablev1.RouteTable) *merger {
	t.Helper()
	m := &merger{player: s.open(t)}
	if serves != nil {
		m.version, m.encoded = routetable.Version(serves), encode(t, serves)
	}
	m.hello(t, &routetablev1.Hello{
		Id: id, SessionId: "1", State: &routetablev1.State{Version: m.version}, Features: []routetablev1.Feature{routetablev1.Feature_FEATURE_DELTA},
	})
	return m
}

func encode(t *testing.T, m proto.Message) []byte {
	t.Helper()
	data, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// receive takes the next table, however it is sent, checks its version and keeps it.
func (m *merger) receive(t *testing.T) (*routetablev1.RouteTable, *routetablev1.Chunk) {
	t.Helper()
	var data []byte
	c := m.chunk(t)
	for ; ; c = m.chunk(t) {
		data = append(data, c.GetData()...)
		if c.GetIndex()+1 == c.GetCount() {
			break
		}
	}
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if uint64(len(raw)) != c.GetDecodedSize() {
		t.Errorf("%d bytes, announced were %d", len(raw), c.GetDecodedSize())
	}
	if c.GetEncoding() == delta {
		if c.GetBase() != m.version {
			t.Fatalf("a delta from %s, it serves %s", c.GetBase(), m.version)
		}
		if raw, err = routetable.Merge(m.encoded, raw); err != nil {
			t.Fatal(err)
		}
	}
	rt := &routetablev1.RouteTable{}
	if err := proto.Unmarshal(raw, rt); err != nil {
		t.Fatal(err)
	}
	if v := routetable.Version(rt); v != c.GetVersion() {
		t.Fatalf("version %s, announced was %s", v, c.GetVersion())
	}
	m.version, m.encoded = c.GetVersion(), raw
	return rt, c
}

func (m *merger) chunk(t *testing.T) *routetablev1.Chunk {
	t.Helper()
	for {
		if c := m.recv(t).GetChunk(); c != nil {
			return c
		}
	}
}

// apply receives a table and says that it serves.
func (m *merger) apply(t *testing.T) *routetablev1.Chunk {
	t.Helper()
	_, c := m.receive(t)
	m.applied(t, c.GetVersion(), c.GetRevision())
	return c
}

func (m *merger) resend(t *testing.T, version string) {
	t.Helper()
	m.send(t, &routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Resend{
		Resend: &routetablev1.Resend{Version: version, Reason: "no\x1b base"},
	}})
}

func TestASmallChangeIsSentAsADelta(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	first := endpoints(2000, 1)
	second := changed(first, 700)
	third := changed(second, 0, 1999)
	third.Endpoints = slices.Delete(third.Endpoints, 1000, 1002)
	third.Port++
	s.publish(t, first)
	var all []*merger
	for i := range 20 {
		m := s.joinMerging(t, fmt.Sprint(i), nil)
		if c := m.apply(t); c.GetEncoding() != whole || c.GetBase() != "" {
			t.Errorf("the first one came as %v from %q", c.GetEncoding(), c.GetBase())
		}
		all = append(all, m)
	}
	old := s.join(t, "old", "1", routetable.Version(first))
	for _, next := range []*routetablev1.RouteTable{second, third} {
		published := s.publish(t, next)
		for _, m := range all {
			before := m.version
			got, c := m.receive(t)
			if c.GetEncoding() != delta || c.GetBase() != before || c.GetRevision() != published.Revision {
				t.Fatalf("came as %v from %s", c.GetEncoding(), c.GetBase())
			}
			equal(t, next, got)
			if len(c.GetData()) > 1000 {
				t.Errorf("%d bytes for a small change", len(c.GetData()))
			}
			m.applied(t, c.GetVersion(), c.GetRevision())
		}
		// One that does not say that it understands them.
		if _, c := old.recvTable(t); c.GetEncoding() != whole {
			t.Errorf("an older data plane got %v", c.GetEncoding())
		}
		old.applied(t, published.Version, published.Revision)
	}
}

func TestTheWholeTableIsSentWhenADeltaSavesNothing(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	s.publish(t, endpoints(100, 1))
	m := s.joinMerging(t, "a", nil)
	m.apply(t)
	half := make([]int, 51)
	for i := range half {
		half[i] = i
	}
	s.publish(t, changed(endpoints(100, 1), half...))
	if c := m.apply(t); c.GetEncoding() != whole {
		t.Errorf("more than half has changed, and it came as %v", c.GetEncoding())
	}
	// And for a version that nobody here has heard of.
	stranger := s.joinMerging(t, "b", endpoints(100, 7))
	if c := stranger.apply(t); c.GetEncoding() != whole {
		t.Errorf("came as %v", c.GetEncoding())
	}
}

func TestOldVersionsAreForgotten(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	tables := []*routetablev1.RouteTable{endpoints(500, 1)}
	s.publish(t, tables[0])
	for i := range 8 {
		tables = append(tables, changed(tables[i], i))
		s.publish(t, tables[i+1])
	}
	for i, want := range map[int]routetablev1.Encoding{0: whole, 1: delta, 7: delta} {
		m := s.joinMerging(t, fmt.Sprint(i), tables[i])
		if got, c := m.receive(t); c.GetEncoding() != want || !proto.Equal(got, tables[8]) {
			t.Errorf("from version %d it came as %v, want %v", i, c.GetEncoding(), want)
		}
	}
}

func TestWhoCannotUseADeltaGetsTheWholeTableOnce(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	tables := []*routetablev1.RouteTable{endpoints(500, 1)}
	for i := range 3 {
		tables = append(tables, changed(tables[i], i))
	}
	s.publish(t, tables[0])
	m := s.joinMerging(t, "a", nil)
	m.apply(t)
	m.resend(t, m.version) // nothing is in flight
	if more := m.alive(t, m.version); len(more) > 0 {
		t.Fatalf("got %v", more)
	}

	next := s.publish(t, tables[1])
	m.chunk(t)
	m.resend(t, next.Version)
	_, c := m.receive(t)
	if c.GetEncoding() != whole || c.GetVersion() != next.Version {
		t.Fatalf("got %v of %s", c.GetEncoding(), c.GetVersion())
	}
	if d := s.row(t, "a"); fleet.StateName(d.GetState()) != "pending" || d.GetError() != "" {
		t.Errorf("it is %v %q: it has refused nothing", d.GetState(), d.GetError())
	}
	// A second time is no answer.
	m.resend(t, next.Version)
	if more := m.alive(t, routetable.Version(tables[0])); len(more) > 0 {
		t.Fatalf("got %v", more)
	}
	m.applied(t, next.Version, next.Revision)
	s.waitState(t, "a", "applied")

	// The next version is another matter.
	s.publish(t, tables[2])
	if c := m.apply(t); c.GetEncoding() != delta {
		t.Errorf("the next came as %v", c.GetEncoding())
	}
	if m := gathered(t, s); m["delta"] != 2 || m["whole"] != 2 {
		t.Errorf("tables sent: %v, want 2 of each kind", m)
	}
}

// gathered returns how many tables were sent, by kind.
func gathered(t *testing.T, s *server) map[string]float64 {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(s.fleet)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sent, bytes := map[string]float64{}, map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			switch f.GetName() {
			case "controlplane_tables_sent_total":
				sent[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			case "controlplane_table_bytes_sent_total":
				bytes[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	for kind, n := range sent {
		if (n > 0) != (bytes[kind] > 0) {
			t.Errorf("%v tables and %v bytes of kind %s", n, bytes[kind], kind)
		}
	}
	return sent
}

// A step of a roll-out, and back: each has the other one as its base.
func TestARollOutGoesForwardAndBackByDeltas(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	base := endpoints(500, 1)
	candidate := changed(base, 3)
	published := s.publish(t, base)
	m := s.joinMerging(t, "a", nil)
	m.apply(t)
	next, err := fleet.NewTable(candidate, routetable.Version(candidate), 2, s.now())
	if err != nil {
		t.Fatal(err)
	}
	s.fleet.Stage(next, published, map[string]bool{"a": true})
	if c := m.apply(t); c.GetEncoding() != delta || c.GetVersion() != routetable.Version(candidate) {
		t.Errorf("forward: %v", c.GetEncoding())
	}
	s.publish(t, base) // it is taken back
	if c := m.apply(t); c.GetEncoding() != delta || c.GetVersion() != routetable.Version(base) {
		t.Errorf("back: %v", c.GetEncoding())
	}
	s.publish(t, changed(base, 4))
	if c := m.apply(t); c.GetEncoding() != delta {
		t.Errorf("and on: %v", c.GetEncoding())
	}
}

// One data plane takes deltas, another one whole tables: they never differ.
func TestRandomChangesByDeltas(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 7))
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	rt := endpoints(60, 1)
	s.publish(t, rt)
	m := s.joinMerging(t, "deltas", nil)
	old := s.join(t, "whole", "1", "")
	deltas := 0
	for range 150 {
		got, c := m.receive(t)
		want, _ := old.recvTable(t)
		equal(t, want, got)
		equal(t, rt, want)
		if c.GetEncoding() == delta {
			deltas++
		}
		m.applied(t, c.GetVersion(), c.GetRevision())
		old.applied(t, c.GetVersion(), c.GetRevision())
		rt = mutated(random, rt)
		s.publish(t, rt)
	}
	if deltas < 50 {
		t.Errorf("%d of 150 came as deltas", deltas)
	}
}

// mutated returns a table that differs from another one by some endpoints, or by what
// is not about endpoints.
func mutated(random *rand.Rand, rt *routetablev1.RouteTable) *routetablev1.RouteTable {
	rt = proto.CloneOf(rt)
	rt.Port = 1 + (rt.GetPort()+1)%60000
	for range random.IntN(6) {
		n := random.IntN(len(rt.Endpoints))
		switch random.IntN(4) {
		case 0:
			rt.Endpoints = slices.Delete(rt.Endpoints, n, n+1)
		case 1:
			e := proto.CloneOf(rt.Endpoints[n])
			e.Name += fmt.Sprintf("-%d", random.IntN(1000))
			if !slices.ContainsFunc(rt.Endpoints, func(o *routetablev1.Endpoint) bool { return o.GetName() == e.GetName() }) {
				rt.Endpoints = slices.Insert(rt.Endpoints, n+1, e)
			}
		case 2:
			rt.Endpoints[n].Pool[0].Weight = random.Uint32N(100)
		case 3:
			rt.RequestId = !rt.GetRequestId()
		}
	}
	slices.SortFunc(rt.Endpoints, func(a, b *routetablev1.Endpoint) int {
		return bytes.Compare([]byte(a.GetName()), []byte(b.GetName()))
	})
	return rt
}

// What is to be prepared comes as a delta, too, and as a whole to who asks for that.
func TestATableIsPreparedOfADelta(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	base := endpoints(500, 1)
	s.publish(t, base)
	var all []*merger
	for _, id := range []string{"a", "b"} {
		m := &merger{player: s.open(t)}
		m.hello(t, &routetablev1.Hello{Id: id, SessionId: "1", Features: []routetablev1.Feature{
			routetablev1.Feature_FEATURE_DELTA, routetablev1.Feature_FEATURE_PREPARE,
		}})
		m.apply(t)
		s.waitState(t, id, "applied")
		all = append(all, m)
	}
	next := s.next(t, changed(base, 3))
	outcome := s.preparing(t, next, 2, patience)
	for i, m := range all {
		if i == 1 {
			m.chunk(t)
			m.resend(t, next.Version)
		}
		_, c := m.receive(t)
		if want := []routetablev1.Encoding{delta, whole}[i]; c.GetEncoding() != want || !c.GetHold() || c.GetVersion() != next.Version {
			t.Fatalf("got %v of %s, to hold: %v; want %v", c.GetEncoding(), c.GetVersion(), c.GetHold(), want)
		}
		m.prepared(t, next.Version)
	}
	wantReady(t, outcome)
	s.fleet.Publish(next)
	s.fleet.Release()
	for _, m := range all {
		m.wantCommit(t, next)
		m.applied(t, next.Version, next.Revision)
	}
	s.publish(t, changed(base, 4))
	for _, m := range all {
		if c := m.apply(t); c.GetEncoding() != delta || c.GetHold() {
			t.Errorf("the next came as %v, to hold: %v", c.GetEncoding(), c.GetHold())
		}
	}
}
