package subscribe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"reverseproxy/dataplane/internal/activate"
	"reverseproxy/dataplane/internal/activate/activatetest"
	"reverseproxy/dataplane/internal/metrics"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

const (
	backend1 = "http://127.0.0.1:5001"
	backend2 = "http://127.0.0.1:5002"
)

// dataPlane is a subscriber with everything it works on.
type dataPlane struct {
	*Subscriber
	activator *activate.Activator
	metrics   *metrics.Set
	stop      func() // and wait
}

// startDataPlane restores and runs a data plane until the test ends or stop.
// change may alter the options; the state directory may be used again.
func startDataPlane(t *testing.T, dir string, change func(*Options), controlPlanes ...string) *dataPlane {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	ao := activatetest.Options(t)
	ao.Log = log
	dp := &dataPlane{activator: activate.New(ao), metrics: ao.State.Metrics}
	o := Options{
		ControlPlanes: controlPlanes, ID: "dp", Labels: map[string]string{"zone": "a"}, Build: "test",
		AdminAddress: "127.0.0.1:19000", Activator: dp.activator, Store: NewStore(dir), Log: log,
		Metrics:   dp.metrics,
		Heartbeat: 20 * time.Millisecond, Silence: patience, FirstDelay: time.Millisecond, MaxDelay: 20 * time.Millisecond,
	}
	if change != nil {
		change(&o)
	}
	dp.Subscriber = New(o)
	dp.Restore()
	ctx, cancel := context.WithCancel(t.Context())
	var g sync.WaitGroup
	g.Go(func() { dp.Run(ctx) })
	dp.stop = func() {
		cancel()
		g.Wait()
	}
	t.Cleanup(dp.stop)
	return dp
}

// serves fails the test unless the data plane serves the version, and from there.
func (dp *dataPlane) serves(t *testing.T, version string, revision uint64, source activate.Source) {
	t.Helper()
	f := dp.activator.InForce()
	if f == nil {
		t.Fatalf("nothing in force, want %s", version)
	}
	if f.Table.Version != version || f.Revision != revision || f.Source != source {
		t.Errorf("in force: version %s revision %d from %s, want %s, %d, %s", f.Table.Version, f.Revision, f.Source, version, revision, source)
	}
}

func TestHello(t *testing.T) {
	cp := startControlPlane(t, "127.0.0.1:0", nil)
	startDataPlane(t, t.TempDir(), nil, cp.address)
	first := cp.accept(t)
	want := &routetablev1.Hello{
		Id: "dp", Labels: map[string]string{"zone": "a"}, Build: "test", AdminAddress: "127.0.0.1:19000", State: &routetablev1.State{},
		Features: []routetablev1.Feature{
			routetablev1.Feature_FEATURE_PREPARE, routetablev1.Feature_FEATURE_DELTA, routetablev1.Feature_FEATURE_TRAFFIC,
		},
	}
	if diff := cmp.Diff(want, first.hello, protocmp.Transform(), protocmp.IgnoreFields(want, "session_id")); diff != "" {
		t.Errorf("hello (-want +got):\n%s", diff)
	}
	first.end <- nil
	second := cp.accept(t)
	if a, b := first.hello.GetSessionId(), second.hello.GetSessionId(); len(a) < 16 || a == b {
		t.Errorf("session ids %q and %q, want two random ones", a, b)
	}
}

func TestTables(t *testing.T) {
	cp := startControlPlane(t, "127.0.0.1:0", nil)
	dir := t.TempDir()
	dp := startDataPlane(t, dir, nil, cp.address)
	p := cp.accept(t)

	port := activatetest.Port(t)
	rt, v1 := activatetest.Table(port, backend1)
	p.sendChunks(t, chunksOf(t, rt, v1, 1, 1<<20)...)
	p.wantApplied(t, v1, 1)
	dp.serves(t, v1, 1, activate.Stream)

	rt, v2 := activatetest.Table(port, backend1, backend2)
	many := chunksOf(t, rt, v2, 2, 10)
	if len(many) < 5 {
		t.Fatalf("only %d chunks", len(many))
	}
	p.sendChunks(t, many...)
	p.wantApplied(t, v2, 2)
	dp.serves(t, v2, 2, activate.Stream)

	// Stored before it is reported.
	if o, err := NewStore(dir).load(); err != nil || o == nil || o.version != v2 || o.revision != 2 {
		t.Errorf("stored: %+v, %v; want %s revision 2", o, err, v2)
	}

	// The next stream says what is served, and a confirmation may bring a newer
	// revision, which is stored too.
	p.end <- nil
	p = cp.accept(t)
	want := &routetablev1.State{Version: v2, Revision: 2, Source: routetablev1.Source_SOURCE_STREAM}
	if diff := cmp.Diff(want, p.hello.GetState(), protocmp.Transform()); diff != "" {
		t.Errorf("state in the hello (-want +got):\n%s", diff)
	}
	p.sendCurrent(t, v2, 9)
	eventually(t, "adopt revision 9", func() error {
		o, err := NewStore(dir).load()
		if err != nil || o.revision != 9 || dp.activator.InForce().Revision != 9 {
			return fmt.Errorf("stored %+v, %v; in force %+v", o, err, dp.activator.InForce())
		}
		return nil
	})

	// A table that is in force already is applied without ado.
	p.sendChunks(t, chunksOf(t, rt, v2, 10, 1<<20)...)
	p.wantApplied(t, v2, 10)
}

// Whatever is done with a table, from the stream or from disk, is done quietly.
func TestQuietly(t *testing.T) {
	cp := startControlPlane(t, "127.0.0.1:0", nil)
	dir := t.TempDir()
	var sizes []uint64 // written before Run, and then by the applying goroutine
	quietly := func(o *Options) {
		o.Quietly = func(size uint64, work func()) {
			sizes = append(sizes, size)
			work()
		}
	}
	dp := startDataPlane(t, dir, quietly, cp.address)
	p := cp.accept(t)
	rt, v1 := activatetest.Table(activatetest.Port(t), backend1)
	p.sendChunks(t, chunksOf(t, rt, v1, 1, 1<<20)...)
	p.wantApplied(t, v1, 1)
	dp.stop()
	startDataPlane(t, dir, quietly, cp.address).stop()
	size := uint64(proto.Size(rt))
	if diff := cmp.Diff([]uint64{size, size}, sizes); diff != "" {
		t.Errorf("sizes (-want +got):\n%s", diff)
	}
}

func TestNewerTableInTheMiddleOfAnother(t *testing.T) {
	cp := startControlPlane(t, "127.0.0.1:0", nil)
	dp := startDataPlane(t, t.TempDir(), nil, cp.address)
	p := cp.accept(t)
	port := activatetest.Port(t)
	rt1, v1 := activatetest.Table(port, backend1)
	rt2, v2 := activatetest.Table(port, backend2)
	p.sendChunks(t, chunksOf(t, rt1, v1, 1, 10)[:3]...)
	p.sendChunks(t, chunksOf(t, rt2, v2, 2, 10)...)
	p.wantApplied(t, v2, 2)
	dp.serves(t, v2, 2, activate.Stream)
}

// A table that cannot be used is rejected on a stream that goes on, and the next
// good one is applied.
func TestRejectedTables(t *testing.T) {
	port := activatetest.Port(t)
	taken, _ := activatetest.TakenPort(t)
	good, goodVersion := activatetest.Table(port, backend1)
	other, otherVersion := activatetest.Table(port, backend2)
	broken := proto.CloneOf(other)
	broken.Endpoints[0].Pool[0].Url = "ftp://example.com"
	future := proto.CloneOf(other)
	future.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 999, protowire.VarintType), 1))
	foreign, foreignVersion := activatetest.Table(taken, backend1)
	wire, err := proto.Marshal(other)
	if err != nil {
		t.Fatal(err)
	}
	garbage := func(size int, data []byte) []*routetablev1.Chunk { return cut(otherVersion, 2, size, data, 50) }
	encoded := func(e routetablev1.Encoding) []*routetablev1.Chunk {
		cs := chunksOf(t, other, otherVersion, 2, 50)
		for _, c := range cs {
			c.Encoding = e
		}
		return cs
	}
	tests := []struct {
		name    string
		version string
		chunks  []*routetablev1.Chunk
		path    string // of the first problem
		message string
	}{
		{"version of another table", goodVersion[:32] + otherVersion[32:], chunksOf(t, other, goodVersion[:32]+otherVersion[32:], 2, 50), "", "announced as"},
		{"broken rule", routetable.Version(broken), chunksOf(t, broken, routetable.Version(broken), 2, 50), "endpoints[0].pool[0].url", "http"},
		{"field of a later release", otherVersion, chunksOf(t, future, otherVersion, 2, 50), "", "does not know"},
		{"port of a foreign program", foreignVersion, chunksOf(t, foreign, foreignVersion, 2, 50), "port", fmt.Sprint(taken)},
		{"not gzip", otherVersion, garbage(len(wire), wire), "", "unpack"},
		{"gzip cut short", otherVersion, garbage(len(wire), zip(t, wire)[:60]), "", "unpack"},
		{"not protobuf", otherVersion, garbage(4, zip(t, []byte("\xff\xff\xff\xff"))), "", "decode"},
		{"bomb", otherVersion, garbage(1000, zip(t, make([]byte, 8<<20))), "", "more than the announced"},
		{"too large", otherVersion, garbage(maxDecodedSize+1, zip(t, wire)), "", "at most"},
		{"size near 2^64", otherVersion, func() []*routetablev1.Chunk {
			cs := garbage(0, zip(t, wire))
			for _, c := range cs {
				c.DecodedSize = math.MaxUint64
			}
			return cs
		}(), "", "at most"},
		{"encoding of a later release", otherVersion, encoded(9), "", "encoding"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cp := startControlPlane(t, "127.0.0.1:0", nil)
			dir := t.TempDir()
			dp := startDataPlane(t, dir, nil, cp.address)
			p := cp.accept(t)
			p.sendChunks(t, chunksOf(t, good, goodVersion, 1, 1<<20)...)
			p.wantApplied(t, goodVersion, 1)

			p.sendChunks(t, tt.chunks...)
			problems := p.wantRejected(t, tt.version, 2)
			if got := problems[0]; got.GetPath() != tt.path || !strings.Contains(got.GetMessage(), tt.message) {
				t.Errorf("problem %v, want one at %q with %q", got, tt.path, tt.message)
			}
			dp.serves(t, goodVersion, 1, activate.Stream)
			if o, err := NewStore(dir).load(); err != nil || o.version != goodVersion {
				t.Errorf("stored: %+v, %v; want the good table", o, err)
			}

			p.sendChunks(t, chunksOf(t, other, otherVersion, 3, 50)...)
			p.wantApplied(t, otherVersion, 3)
			dp.serves(t, otherVersion, 3, activate.Stream)
		})
	}
}

func TestBrokenSequenceEndsTheStream(t *testing.T) {
	cp := startControlPlane(t, "127.0.0.1:0", nil)
	startDataPlane(t, t.TempDir(), nil, cp.address)
	rt, version := activatetest.Table(activatetest.Port(t), backend1)
	chunks := chunksOf(t, rt, version, 1, 10)
	p := cp.accept(t)
	p.sendChunks(t, chunks[0], chunks[2])
	p.wantEnd(t)
	p = cp.accept(t)
	p.sendChunks(t, chunks...)
	p.wantApplied(t, version, 1)
}

func TestUnknownMessagesAreIgnored(t *testing.T) {
	cp := startControlPlane(t, "127.0.0.1:0", nil)
	startDataPlane(t, t.TempDir(), nil, cp.address)
	p := cp.accept(t)
	future := &routetablev1.SubscribeResponse{}
	future.ProtoReflect().SetUnknown(protowire.AppendBytes(protowire.AppendTag(nil, 100, protowire.BytesType), []byte("later")))
	p.mustSend(t, future)
	p.mustSend(t, &routetablev1.SubscribeResponse{})
	p.sendCurrent(t, "a version that is not in force", 3)
	rt, version := activatetest.Table(activatetest.Port(t), backend1)
	chunks := chunksOf(t, rt, version, 1, 50)
	for _, c := range chunks { // unknown fields in a known message
		c.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 100, protowire.VarintType), 1))
	}
	p.sendChunks(t, chunks...)
	p.wantApplied(t, version, 1)
}

func TestHeartbeats(t *testing.T) {
	cp := startControlPlane(t, "127.0.0.1:0", nil)
	dp := startDataPlane(t, t.TempDir(), nil, cp.address)
	p := cp.accept(t)
	rt, version := activatetest.Table(activatetest.Port(t), backend1)
	p.sendChunks(t, chunksOf(t, rt, version, 4, 50)...)
	p.wantApplied(t, version, 4)
	e := dp.metrics.Endpoint("/a")
	for i := range 77 {
		e.Begin(0)
		e.End(0, &metrics.Request{Method: "GET", Code: 502, ByProxy: i < 2})
	}
	want := &routetablev1.Heartbeat{
		State:         &routetablev1.State{Version: version, Revision: 4, Source: routetablev1.Source_SOURCE_STREAM},
		RequestsTotal: 77, FailuresTotal: 2,
		Traffic: &routetablev1.Traffic{Requests: 77, ServerErrors: 77, GatewayErrors: 2, Durations: make([]uint64, metrics.Buckets)},
	}
	want.Traffic.Durations[0] = 77
	eventually(t, "heartbeat with the newest state", func() error {
		if diff := cmp.Diff(want, <-p.heartbeats, protocmp.Transform(), protocmp.IgnoreFields(want, "backends", "endpoints")); diff != "" {
			return errors.New(diff)
		}
		return nil
	})
}

func TestReconnects(t *testing.T) {
	short := func(o *Options) { o.Silence = 500 * time.Millisecond }

	t.Run("after a restart of the control plane", func(t *testing.T) {
		cp := startControlPlane(t, "127.0.0.1:0", nil)
		dp := startDataPlane(t, t.TempDir(), nil, cp.address)
		p := cp.accept(t)
		port := activatetest.Port(t)
		rt, v1 := activatetest.Table(port, backend1)
		p.sendChunks(t, chunksOf(t, rt, v1, 1, 50)...)
		p.wantApplied(t, v1, 1)
		cp.stop()
		eventually(t, "see the loss", func() error { return gauge(dp, "dataplane_controlplane_connected", 0) })
		dp.serves(t, v1, 1, activate.Stream)
		if err := dp.activator.Ready(); err != nil {
			t.Errorf("not ready without a control plane: %v", err)
		}
		cp = startControlPlane(t, cp.address, nil)
		p = cp.accept(t)
		rt, v2 := activatetest.Table(port, backend2)
		p.sendChunks(t, chunksOf(t, rt, v2, 2, 50)...)
		p.wantApplied(t, v2, 2)
		eventually(t, "see the recovery", func() error { return gauge(dp, "dataplane_controlplane_connected", 1) })
	})

	t.Run("when the control plane hangs before the first answer", func(t *testing.T) {
		hung, accepted := hungServer(t)
		cp := startControlPlane(t, "127.0.0.1:0", nil)
		startDataPlane(t, t.TempDir(), short, hung, cp.address)
		cp.accept(t).end <- nil
		<-accepted
		cp.accept(t)
	})

	t.Run("when heartbeats get no answer", func(t *testing.T) {
		mute := startControlPlane(t, "127.0.0.1:0", func(cp *controlPlane) { cp.mute.Store(true) })
		cp := startControlPlane(t, "127.0.0.1:0", nil)
		startDataPlane(t, t.TempDir(), short, mute.address, cp.address)
		cp.accept(t).end <- nil
		p := mute.accept(t)
		cp.accept(t)
		p.wantEnd(t)
	})

	t.Run("to the other address, and round again", func(t *testing.T) {
		a, b := startControlPlane(t, "127.0.0.1:0", nil), startControlPlane(t, "127.0.0.1:0", nil)
		startDataPlane(t, t.TempDir(), nil, a.address, b.address)
		if firstOf(t, a, b) == b {
			a, b = b, a
		}
		for range 2 {
			p := a.accept(t)
			p.end <- errors.New("no more")
			p = b.accept(t)
			p.end <- nil
		}
		a.stop()
		b.accept(t)
	})

	t.Run("over IPv6", func(t *testing.T) {
		l, err := net.Listen("tcp", "[::1]:0")
		if err != nil {
			t.Skipf("no IPv6 here: %v", err)
		}
		l.Close()
		cp := startControlPlane(t, "[::1]:0", nil)
		startDataPlane(t, t.TempDir(), nil, cp.address)
		cp.accept(t)
	})
}

// An activation that takes longer than a control plane may be silent must not
// look like silence: both sides are heard while it goes on.
func TestLongActivationIsNotSilence(t *testing.T) {
	cp := startControlPlane(t, "127.0.0.1:0", nil)
	begun, release := make(chan struct{}), make(chan struct{})
	ao := activatetest.Options(t)
	open := ao.Open
	ao.Open = func(address string, port uint16) (activate.Listener, error) {
		close(begun)
		<-release
		return open(address, port)
	}
	ao.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	slow := activate.New(ao)
	var place atomic.Uint32
	startDataPlane(t, t.TempDir(), func(o *Options) { o.Activator, o.Place = slow, &place }, cp.address)
	p := cp.accept(t)
	rt, version := activatetest.Table(activatetest.Port(t), backend1)
	p.sendChunks(t, chunksOf(t, rt, version, 1, 50)...)
	<-begun
	for n := range uint32(5) {
		p.sendPlacement(t, 1+n)
		waitPlace(t, &place, 1+n)
		p.nextHeartbeat(t)
	}
	if n := len(p.reports); n > 0 {
		t.Errorf("%d reports in the middle of the activation", n)
	}
	close(release)
	p.wantApplied(t, version, 1)
}

func TestGoodbye(t *testing.T) {
	cp := startControlPlane(t, "127.0.0.1:0", nil)
	dp := startDataPlane(t, t.TempDir(), nil, cp.address)
	p := cp.accept(t)
	dp.stop()
	if m := p.next(t); m.GetGoodbye() == nil {
		t.Errorf("last message %v, want goodbye", m)
	}
	p.wantEnd(t)
}

func TestStopNeedsNoControlPlane(t *testing.T) {
	t.Run("hung", func(t *testing.T) {
		hung, accepted := hungServer(t)
		dp := startDataPlane(t, t.TempDir(), nil, hung)
		<-accepted
		dp.stop()
	})
	t.Run("mute", func(t *testing.T) {
		cp := startControlPlane(t, "127.0.0.1:0", func(cp *controlPlane) { cp.mute.Store(true) })
		dp := startDataPlane(t, t.TempDir(), nil, cp.address)
		p := cp.accept(t)
		dp.stop()
		if m := p.next(t); m.GetGoodbye() == nil {
			t.Errorf("last message %v, want goodbye", m)
		}
	})
	t.Run("away", func(t *testing.T) {
		dp := startDataPlane(t, t.TempDir(), func(o *Options) { o.FirstDelay, o.MaxDelay = time.Hour, time.Hour }, away(t))
		dp.stop()
	})
}

// stored makes a state directory that holds a table.
func stored(t *testing.T, rt *routetablev1.RouteTable, version string, revision uint64) string {
	t.Helper()
	dir := t.TempDir()
	wire, err := proto.Marshal(rt)
	if err != nil {
		t.Fatal(err)
	}
	o := &offer{version: version, revision: revision, decodedSize: uint64(len(wire)), data: zip(t, wire)}
	if err := NewStore(dir).save(o); err != nil {
		t.Fatal(err)
	}
	return dir
}

// away is the address of a control plane that is not there.
func away(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", activatetest.Port(t))
}

func TestStartFromDisk(t *testing.T) {
	rt, version := activatetest.Table(activatetest.Port(t), backend1)
	dir := stored(t, rt, version, 6)
	address := away(t)
	dp := startDataPlane(t, dir, nil, address)
	dp.serves(t, version, 6, activate.Disk)
	if err := dp.activator.Ready(); err != nil {
		t.Errorf("not ready: %v", err)
	}

	// Once a control plane confirms the version, it counts as the stream's, and
	// the control plane hears that at once.
	cp := startControlPlane(t, "127.0.0.1:0", nil)
	dp.stop()
	startDataPlane(t, dir, func(o *Options) { o.Heartbeat = time.Hour }, cp.address)
	p := cp.accept(t)
	want := &routetablev1.State{Version: version, Revision: 6, Source: routetablev1.Source_SOURCE_DISK}
	if diff := cmp.Diff(want, p.hello.GetState(), protocmp.Transform()); diff != "" {
		t.Errorf("state in the hello (-want +got):\n%s", diff)
	}
	p.sendCurrent(t, version, 7)
	want = &routetablev1.State{Version: version, Revision: 7, Source: routetablev1.Source_SOURCE_STREAM}
	eventually(t, "report the confirmation", func() error {
		select {
		case h := <-p.heartbeats:
			if diff := cmp.Diff(want, h.GetState(), protocmp.Transform()); diff != "" {
				return errors.New(diff)
			}
			return nil
		default:
			return errors.New("no heartbeat")
		}
	})
}

func TestUnusableStoredTable(t *testing.T) {
	port := activatetest.Port(t)
	good, version := activatetest.Table(port, backend1)
	broken := proto.CloneOf(good)
	broken.Endpoints[0].Pool = nil
	tests := []struct {
		name string
		dir  func(t *testing.T) string
		log  string
	}{
		{"none", func(t *testing.T) string { return t.TempDir() }, "no stored route table"},
		{"damaged", func(t *testing.T) string {
			dir := stored(t, good, version, 1)
			path := NewStore(dir).Path()
			p, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			p[len(p)/2] ^= 1
			if err := os.WriteFile(path, p, 0o600); err != nil {
				t.Fatal(err)
			}
			return dir
		}, "checksum"},
		{"version does not fit", func(t *testing.T) string { return stored(t, good, strings.Repeat("0", 64), 1) }, "announced as"},
		{"broken rule", func(t *testing.T) string { return stored(t, broken, routetable.Version(broken), 1) }, "endpoints[0].pool"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cp := startControlPlane(t, "127.0.0.1:0", nil)
			var log syncBuffer
			dir := tt.dir(t)
			dp := startDataPlane(t, dir, func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) }, cp.address)
			p := cp.accept(t)
			if got := p.hello.GetState().GetVersion(); got != "" || dp.activator.InForce() != nil {
				t.Errorf("serves %q", got)
			}
			if !strings.Contains(log.String(), tt.log) {
				t.Errorf("log %q does not contain %q", log.String(), tt.log)
			}
			p.sendChunks(t, chunksOf(t, good, version, 2, 50)...)
			p.wantApplied(t, version, 2)
			if o, err := NewStore(dir).load(); err != nil || o.version != version {
				t.Errorf("stored: %+v, %v; want the good table", o, err)
			}
		})
	}
}

// The port of the only table is taken: the data plane goes on trying, and
// reports success when the port becomes free, although the control plane does
// not send a rejected table again.
func TestWaitsForThePort(t *testing.T) {
	t.Run("from disk", func(t *testing.T) {
		port, release := activatetest.TakenPort(t)
		rt, version := activatetest.Table(port, backend1)
		dp := startDataPlane(t, stored(t, rt, version, 1), nil, away(t))
		if dp.activator.InForce() != nil {
			t.Fatal("in force in spite of the taken port")
		}
		release()
		eventually(t, "serve", dp.activator.Ready)
		dp.serves(t, version, 1, activate.Disk)
	})
	t.Run("from the stream", func(t *testing.T) {
		cp := startControlPlane(t, "127.0.0.1:0", nil)
		port, release := activatetest.TakenPort(t)
		rt, version := activatetest.Table(port, backend1)
		dp := startDataPlane(t, t.TempDir(), nil, cp.address)
		p := cp.accept(t)
		p.sendChunks(t, chunksOf(t, rt, version, 1, 50)...)
		p.wantRejected(t, version, 1)
		release()
		p.wantApplied(t, version, 1)
		dp.serves(t, version, 1, activate.Stream)
	})
	t.Run("prepared", func(t *testing.T) {
		var taken atomic.Bool
		ao := activatetest.Options(t)
		ao.Log = slog.New(slog.DiscardHandler)
		open := ao.Open
		ao.Open = func(address string, port uint16) (activate.Listener, error) {
			if taken.Load() {
				return nil, syscall.EADDRINUSE
			}
			return open(address, port)
		}
		cp := startControlPlane(t, "127.0.0.1:0", nil)
		startDataPlane(t, t.TempDir(), func(o *Options) { o.Activator = activate.New(ao) }, cp.address)
		p := cp.accept(t)
		rt, version := activatetest.Table(activatetest.Port(t), backend1)
		p.sendHold(t, rt, version, 1)
		p.wantPrepared(t, version)
		taken.Store(true)
		p.sendCommit(t, version, 2)
		p.wantRejected(t, version, 2)
		// Tried again, it is not reported again.
		<-p.heartbeats
		<-p.heartbeats
		taken.Store(false)
		p.wantApplied(t, version, 2)
	})
	t.Run("a newer table does not wait", func(t *testing.T) {
		cp := startControlPlane(t, "127.0.0.1:0", nil)
		port, release := activatetest.TakenPort(t)
		rt, version := activatetest.Table(port, backend1)
		dp := startDataPlane(t, stored(t, rt, version, 1), nil, cp.address)
		p := cp.accept(t)
		rt, newer := activatetest.Table(activatetest.Port(t), backend2)
		p.sendChunks(t, chunksOf(t, rt, newer, 2, 50)...)
		p.wantApplied(t, newer, 2)
		release()
		// Two heartbeats later nothing has changed.
		<-p.heartbeats
		<-p.heartbeats
		dp.serves(t, newer, 2, activate.Stream)
	})
}

// A state directory that cannot be written is a pity, not a reason to reject; it
// is written as soon as that is possible.
func TestStoreFailure(t *testing.T) {
	cp := startControlPlane(t, "127.0.0.1:0", nil)
	dir := t.TempDir() + "/state"
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // a file in the way
		t.Fatal(err)
	}
	dp := startDataPlane(t, dir, nil, cp.address)
	p := cp.accept(t)
	rt, version := activatetest.Table(activatetest.Port(t), backend1)
	p.sendChunks(t, chunksOf(t, rt, version, 1, 50)...)
	p.wantApplied(t, version, 1)
	if n := dp.storeFailures.Load(); n == 0 {
		t.Error("the failure is not counted")
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	eventually(t, "store", func() error {
		o, err := NewStore(dir).load()
		if err == nil && o == nil {
			err = errors.New("nothing stored")
		}
		return err
	})
}

func TestMetrics(t *testing.T) {
	cp := startControlPlane(t, "127.0.0.1:0", nil)
	dp := startDataPlane(t, t.TempDir(), nil, cp.address)
	cp.accept(t)
	eventually(t, "connected", func() error { return gauge(dp, "dataplane_controlplane_connected", 1) })
	problems, err := testutil.CollectAndLint(dp)
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
	if n := testutil.CollectAndCount(dp); n != 3 {
		t.Errorf("%d metrics, want 3", n)
	}
}

// gauge checks one value of the data plane's metrics.
func gauge(dp *dataPlane, name string, want int) error {
	help := "Whether a control plane answers on the stream."
	return testutil.CollectAndCompare(dp, strings.NewReader(fmt.Sprintf("# HELP %s %s\n# TYPE %s gauge\n%s %d\n", name, help, name, name, want)), name)
}

func TestCheckAddress(t *testing.T) {
	for _, tt := range []struct {
		address  string
		insecure bool
		want     string // part of the error; "" is none
	}{
		{"127.0.0.1:18000", false, ""},
		{"127.8.9.10:18000", false, ""},
		{"[::1]:18000", false, ""},
		{"[::ffff:127.0.0.1]:18000", false, ""},
		{"localhost:18000", false, ""},
		{"192.0.2.1:18000", true, ""},
		{"cp.example.com:18000", true, ""},
		{"192.0.2.1:18000", false, "--insecure"},
		{"cp.example.com:18000", false, "--insecure"},
		{"localhost.example.com:18000", false, "--insecure"},
		{"[2001:db8::1]:18000", false, "--insecure"},
		{"0.0.0.0:18000", false, "--insecure"},
		{"localhost", true, "host:port"},
		{"::1:18000", true, "host:port"},
		{"localhost:", true, "port"},
		{"localhost:http", true, "port"},
		{"localhost:65536", true, "port"},
		{":18000", true, "host is missing"},
	} {
		err := CheckAddress(tt.address, tt.insecure)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("CheckAddress(%q, %v): %v, want %q", tt.address, tt.insecure, err, tt.want)
		}
	}
}

func TestBackoff(t *testing.T) {
	b := backoff{first: 200 * time.Millisecond, max: 5 * time.Second}
	for range 2 {
		for _, base := range []float64{200, 320, 512, 819.2, 1310.72, 2097.152, 3333.333, 3333.333} {
			got := b.next().Seconds() * 1000
			if got < base*0.5-1 || got > min(base*1.5+1, 5000) {
				t.Errorf("pause of %.0f ms, want %.0f give or take half", got, base)
			}
		}
		b.settled(b.max)
	}
}

func TestAControlPlaneThatComesAndGoesIsTriedLessAndLess(t *testing.T) {
	b := backoff{first: 200 * time.Millisecond, max: 5 * time.Second}
	for range 20 {
		b.next()
		b.settled(100 * time.Millisecond)
	}
	if got := b.next(); got < 1600*time.Millisecond {
		t.Errorf("pause of %s after 20 short connections", got)
	}
}

// The table of a stream that has broken may come into force after the hello of
// the next one.
func TestAConfirmationOfAnotherVersionIsAnsweredWithTheTruth(t *testing.T) {
	cp := startControlPlane(t, "127.0.0.1:0", nil)
	startDataPlane(t, t.TempDir(), func(o *Options) { o.Heartbeat = time.Hour }, cp.address)
	p := cp.accept(t)
	rt, version := activatetest.Table(activatetest.Port(t), backend1)
	p.sendChunks(t, chunksOf(t, rt, version, 1, 50)...)
	p.wantApplied(t, version, 1)
	<-p.heartbeats // the one at the start
	p.sendCurrent(t, "another", 2)
	select {
	case h := <-p.heartbeats:
		if got := h.GetState().GetVersion(); got != version {
			t.Errorf("it says that it serves %q, want %q", got, version)
		}
	case <-time.After(patience):
		t.Fatal("no answer to a wrong confirmation")
	}
}

func TestARefusalIsLoggedOnce(t *testing.T) {
	var log bytes.Buffer
	cp := startControlPlane(t, "127.0.0.1:0", nil)
	dp := startDataPlane(t, t.TempDir(), func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) }, cp.address)
	p := cp.accept(t)
	rt, _ := activatetest.Table(activatetest.Port(t), backend1)
	for range 5 {
		p.sendChunks(t, chunksOf(t, rt, "wrong", 1, 1000)...)
		p.wantRejected(t, "wrong", 1)
	}
	dp.stop()
	if n := strings.Count(log.String(), "route table rejected"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, &log)
	}
}

func TestProblemsAreBounded(t *testing.T) {
	var errs []error
	for i := range 1000 {
		errs = append(errs, &routetable.Problem{Path: fmt.Sprintf("endpoints[%d]", i), Message: strings.Repeat("ä", 2000) + "\xff"})
	}
	ps := problems(errors.Join(errs...))
	if len(ps) != maxProblems+1 || ps[maxProblems].GetMessage() != "and 900 more problems" {
		t.Errorf("%d problems, the last is %v", len(ps), ps[len(ps)-1])
	}
	if _, err := proto.Marshal(&routetablev1.Rejected{Problems: ps}); err != nil {
		t.Errorf("marshal: %v", err)
	}
	plain := problems(errors.New("no reason given\xff"))
	want := []*routetablev1.Problem{{Message: "no reason given\uFFFD"}}
	if diff := cmp.Diff(want, plain, protocmp.Transform()); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

// syncBuffer is a bytes.Buffer for several goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
