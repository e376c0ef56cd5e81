package subscribe

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"reverseproxy/dataplane/internal/activate"
	"reverseproxy/dataplane/internal/activate/activatetest"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// deltaTo returns what makes a table of the first endpoints of it.
func deltaTo(rt *routetablev1.RouteTable, known int) *routetablev1.RouteTableDelta {
	rest := proto.CloneOf(rt)
	rest.Endpoints = nil
	return &routetablev1.RouteTableDelta{Rest: rest, Changed: rt.GetEndpoints()[known:], DecodedSize: uint64(proto.Size(rt))}
}

// deltaChunks encodes a delta as the control plane does.
func deltaChunks(t testing.TB, d *routetablev1.RouteTableDelta, base, version string, revision uint64, size int) []*routetablev1.Chunk {
	t.Helper()
	wire, err := proto.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	chunks := cut(version, revision, len(wire), zip(t, wire), size)
	for _, c := range chunks {
		c.Encoding, c.Base = routetablev1.Encoding_ENCODING_DELTA_GZIP, base
	}
	return chunks
}

func (p *peer) wantResend(t *testing.T, version string) {
	t.Helper()
	m := p.next(t)
	if r := m.GetResend(); r == nil || r.GetVersion() != version || r.GetReason() == "" {
		t.Fatalf("report %v, want %s to be sent again, with a reason", m, version)
	}
}

func TestDeltas(t *testing.T) {
	cp := startControlPlane(t, "127.0.0.1:0", nil)
	dir := t.TempDir()
	dp := startDataPlane(t, dir, nil, cp.address)
	p := cp.accept(t)
	port := activatetest.Port(t)
	var urls []string
	before := ""
	for n := 1; n <= 5; n++ {
		urls = append(urls, fmt.Sprintf("http://127.0.0.1:%d", n))
		rt, version := activatetest.Table(port, urls...)
		if n == 1 {
			p.sendChunks(t, chunksOf(t, rt, version, 1, 1<<20)...)
		} else {
			p.sendChunks(t, deltaChunks(t, deltaTo(rt, n-1), before, version, uint64(n), 50)...)
		}
		p.wantApplied(t, version, uint64(n))
		dp.serves(t, version, uint64(n), activate.Stream)
		if got := dp.activator.InForce().Table.Len(); got != n {
			t.Fatalf("%d endpoints, want %d", got, n)
		}
		// What is stored makes the whole table.
		o, err := NewStore(dir).load()
		if err != nil || o.version != version || o.base != "" || o.revision != uint64(n) {
			t.Fatalf("stored: %+v, %v", o, err)
		}
		if encoded, err := o.unpack(); err != nil || len(encoded) != proto.Size(rt) {
			t.Fatalf("stored are %d bytes, %v; want %d", len(encoded), err, proto.Size(rt))
		}
		before = version
	}

	// After a restart without a control plane, the stored one is what deltas start from.
	dp.stop()
	dp = startDataPlane(t, dir, nil, cp.address)
	dp.serves(t, before, 5, activate.Disk)
	p = cp.accept(t)
	for p.hello.GetState().GetVersion() != before {
		p = cp.accept(t)
	}
	rt, version := activatetest.Table(port, append(urls, "http://127.0.0.1:6")...)
	p.sendChunks(t, deltaChunks(t, deltaTo(rt, 5), before, version, 6, 1<<20)...)
	p.wantApplied(t, version, 6)
	dp.serves(t, version, 6, activate.Stream)
}

// manyEndpoints returns a table with endpoints that have two backends each.
func manyEndpoints(port uint16, size int) *routetablev1.RouteTable {
	rt, _ := activatetest.Table(port, backend1)
	e := rt.GetEndpoints()[0]
	rt.Endpoints = nil
	for i := range size {
		e := proto.CloneOf(e)
		e.Name = fmt.Sprintf("/service/%06d/index", i)
		e.Path = &routetablev1.Endpoint_Exact{Exact: e.GetName()}
		e.Pool = nil
		for j := range 2 {
			e.Pool = append(e.Pool, &routetablev1.Backend{Url: fmt.Sprintf("http://10.%d.%d.%d:8080/index", j, i/256, i%256), Weight: 1})
		}
		rt.Endpoints = append(rt.Endpoints, e)
	}
	return rt
}

// change gives an endpoint another backend and returns what makes the table of the one
// before, and the new version.
func change(rt *routetablev1.RouteTable, endpoint, n int) (*routetablev1.RouteTableDelta, string) {
	changed := rt.GetEndpoints()[endpoint]
	changed.Pool[0].Url = fmt.Sprintf("http://127.0.0.1:%d", 5000+n)
	d := deltaTo(&routetablev1.RouteTable{Port: rt.GetPort(), Limits: rt.GetLimits()}, 0)
	d.Changed, d.DecodedSize = []*routetablev1.Endpoint{changed}, uint64(proto.Size(rt))
	return d, routetable.Version(rt)
}

// Of a small change of a large table only the change is written to disk, and each start
// is with what was applied last. A crash that leaves half a change leaves the table before.
func TestDeltasAreStoredAsDeltas(t *testing.T) {
	cp := startControlPlane(t, "127.0.0.1:0", nil)
	dir := t.TempDir()
	dp := startDataPlane(t, dir, nil, cp.address)
	p := cp.accept(t)
	path := NewStore(dir).Path()
	size := func() int64 {
		t.Helper()
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	restart := func(version string, revision uint64) {
		t.Helper()
		dp.stop()
		dp = startDataPlane(t, dir, nil, cp.address)
		dp.serves(t, version, revision, activate.Disk)
		for p = cp.accept(t); p.hello.GetState().GetSource() != routetablev1.Source_SOURCE_DISK; {
			p = cp.accept(t)
		}
	}

	rt := manyEndpoints(activatetest.Port(t), 1000)
	version := routetable.Version(rt)
	revision := uint64(1)
	p.sendChunks(t, chunksOf(t, rt, version, revision, 1<<20)...)
	p.wantApplied(t, version, revision)
	whole := size()
	var before string
	var d *routetablev1.RouteTableDelta
	folded := false
	for n := range maxChanges + 5 {
		if n%7 == 3 {
			restart(version, revision)
			revision++
			p.sendCurrent(t, version, revision)
			eventually(t, "the revision is stored", func() error {
				o, err := NewStore(dir).load()
				if err == nil && o.revision != revision {
					err = errors.New("it is not yet")
				}
				return err
			})
		}
		before = version
		beforeSize := size()
		revision++
		d, version = change(rt, n, n)
		p.sendChunks(t, deltaChunks(t, d, before, version, revision, 1<<20)...)
		p.wantApplied(t, version, revision)
		switch grown := size() - beforeSize; {
		case grown > 500:
			t.Fatalf("the file of %d bytes grows by %d", whole, grown)
		case grown < 0:
			folded = true
		}
	}
	if !folded {
		t.Errorf("after %d changes the table has not been stored as a whole again", maxChanges+5)
	}

	dp.stop()
	if err := os.Truncate(path, size()-1); err != nil {
		t.Fatal(err)
	}
	restart(before, revision-1)
	p.sendChunks(t, deltaChunks(t, d, before, version, revision, 1<<20)...)
	p.wantApplied(t, version, revision)
	restart(version, revision)
}

// A delta may come for what is in force already: the stream before had brought it, and it
// came into force after the hello. What is stored is the whole table all the same.
func TestADeltaToTheTableInForce(t *testing.T) {
	cp := startControlPlane(t, "127.0.0.1:0", nil)
	dir := t.TempDir()
	dp := startDataPlane(t, dir, nil, cp.address)
	p := cp.accept(t)
	port := activatetest.Port(t)
	first, v1 := activatetest.Table(port, backend1)
	next, v2 := activatetest.Table(port, backend1, backend2)
	p.sendChunks(t, chunksOf(t, first, v1, 1, 1<<20)...)
	p.wantApplied(t, v1, 1)
	for revision := uint64(2); revision <= 3; revision++ {
		p.sendChunks(t, deltaChunks(t, deltaTo(next, 1), v1, v2, revision, 1<<20)...)
		p.wantApplied(t, v2, revision)
		dp.serves(t, v2, revision, activate.Stream)
	}
	o, err := NewStore(dir).load()
	if err != nil || o.version != v2 || o.revision != 3 {
		t.Fatalf("stored: %+v, %v", o, err)
	}
	if encoded, err := o.unpack(); err != nil || len(encoded) != proto.Size(next) {
		t.Errorf("stored are %d bytes, %v; want the %d of the table", len(encoded), err, proto.Size(next))
	}
}

// Whatever is wrong with a delta: the whole table is asked for, nothing is refused, and
// the one before goes on serving.
func TestADeltaThatCannotBeUsed(t *testing.T) {
	cp := startControlPlane(t, "127.0.0.1:0", nil)
	dp := startDataPlane(t, t.TempDir(), nil, cp.address)
	p := cp.accept(t)
	port := activatetest.Port(t)
	first, v1 := activatetest.Table(port, backend1)
	next, v2 := activatetest.Table(port, backend1, backend2)
	change := func(f func(*routetablev1.RouteTableDelta)) *routetablev1.RouteTableDelta {
		d := proto.CloneOf(deltaTo(next, 1))
		f(d)
		return d
	}
	good := deltaTo(next, 1)

	// Before there is a table at all.
	p.sendChunks(t, deltaChunks(t, good, v1, v2, 2, 1<<20)...)
	p.wantResend(t, v2)

	p.sendChunks(t, chunksOf(t, first, v1, 1, 1<<20)...)
	p.wantApplied(t, v1, 1)
	for name, chunks := range map[string][]*routetablev1.Chunk{
		"another base":      deltaChunks(t, good, "other", v2, 2, 1<<20),
		"another content":   deltaChunks(t, change(func(d *routetablev1.RouteTableDelta) { d.Changed[0].Pool[0].Url = "http://127.0.0.1:9" }), v1, v2, 2, 1<<20),
		"an invalid result": deltaChunks(t, change(func(d *routetablev1.RouteTableDelta) { d.Changed[0].Pool[0].Url = "ftp://0.0.1:9xxxx" }), v1, v2, 2, 1<<20),
		"another size":      deltaChunks(t, change(func(d *routetablev1.RouteTableDelta) { d.DecodedSize++ }), v1, v2, 2, 1<<20),
		"something removed that is not there": deltaChunks(t, change(func(d *routetablev1.RouteTableDelta) {
			d.Removed = []string{"/z"}
		}), v1, v2, 2, 1<<20),
		"no gzip":           withData(deltaChunks(t, good, v1, v2, 2, 1<<20), []byte("xx")),
		"no delta":          withData(deltaChunks(t, good, v1, v2, 2, 1<<20), zip(t, make([]byte, proto.Size(good)))),
		"announced too big": withSize(deltaChunks(t, good, v1, v2, 2, 20), maxDecodedSize+1),
	} {
		t.Run(name, func(t *testing.T) {
			p.sendChunks(t, chunks...)
			p.wantResend(t, v2)
			dp.serves(t, v1, 1, activate.Stream)
		})
	}
	if rejected := updates(t, dp, "rejected"); rejected != 0 {
		t.Errorf("%v tables count as rejected", rejected)
	}

	p.sendChunks(t, chunksOf(t, next, v2, 2, 1<<20)...)
	p.wantApplied(t, v2, 2)
	dp.serves(t, v2, 2, activate.Stream)
}

// A table that was made well and cannot be put in force is refused like any other.
func TestADeltaToATableThatIsRefused(t *testing.T) {
	cp := startControlPlane(t, "127.0.0.1:0", nil)
	dp := startDataPlane(t, t.TempDir(), nil, cp.address)
	p := cp.accept(t)
	first, v1 := activatetest.Table(activatetest.Port(t), backend1)
	p.sendChunks(t, chunksOf(t, first, v1, 1, 1<<20)...)
	p.wantApplied(t, v1, 1)
	taken, _ := activatetest.TakenPort(t)
	next, v2 := activatetest.Table(taken, backend1, backend2)
	p.sendChunks(t, deltaChunks(t, deltaTo(next, 1), v1, v2, 2, 1<<20)...)
	if problems := p.wantRejected(t, v2, 2); problems[0].GetPath() != "port" {
		t.Errorf("problems %v, want one about the port", problems)
	}
	dp.serves(t, v1, 1, activate.Stream)
	if rejected := updates(t, dp, "rejected"); rejected != 1 {
		t.Errorf("%v tables count as rejected, want 1", rejected)
	}
}

// updates returns how many tables count as having had a result.
func updates(t *testing.T, dp *dataPlane, result string) float64 {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(dp.activator)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "dataplane_config_updates_total" && m.GetLabel()[0].GetValue() == result {
				return m.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("no series for %s", result)
	return 0
}

func withData(chunks []*routetablev1.Chunk, data []byte) []*routetablev1.Chunk {
	chunks[0].Data = data
	return chunks
}

func withSize(chunks []*routetablev1.Chunk, size uint64) []*routetablev1.Chunk {
	for _, c := range chunks {
		c.DecodedSize = size
	}
	return chunks
}

func TestADeltaToPrepare(t *testing.T) {
	cp := startControlPlane(t, "127.0.0.1:0", nil)
	dir := t.TempDir()
	dp := startDataPlane(t, dir, nil, cp.address)
	p := cp.accept(t)
	port := activatetest.Port(t)
	first, v1 := activatetest.Table(port, backend1)
	next, v2 := activatetest.Table(port, backend1, backend2)
	p.sendChunks(t, chunksOf(t, first, v1, 1, 1<<20)...)
	p.wantApplied(t, v1, 1)
	hold := func(base string) []*routetablev1.Chunk {
		chunks := deltaChunks(t, deltaTo(next, 1), base, v2, 2, 30)
		for _, c := range chunks {
			c.Hold = true
		}
		return chunks
	}
	p.sendChunks(t, hold("other")...)
	p.wantResend(t, v2)
	p.sendChunks(t, hold(v1)...)
	p.wantPrepared(t, v2)
	dp.serves(t, v1, 1, activate.Stream)
	p.sendCommit(t, v2, 3)
	p.wantApplied(t, v2, 3)
	dp.serves(t, v2, 3, activate.Stream)
	if o, err := NewStore(dir).load(); err != nil || o.version != v2 || o.base != "" || o.revision != 3 {
		t.Errorf("stored: %+v, %v", o, err)
	} else if encoded, err := o.unpack(); err != nil || len(encoded) != proto.Size(next) {
		t.Errorf("stored are %d bytes, %v; want %d", len(encoded), err, proto.Size(next))
	}
	if rejected := updates(t, dp, "rejected"); rejected != 0 {
		t.Errorf("%v tables count as rejected", rejected)
	}
}
