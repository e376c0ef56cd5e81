package fleet_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/testing/protocmp"

	"reverseproxy/controlplane/internal/fleet"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

func TestANewDataPlaneGetsTheDesiredTable(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	want := s.publish(t, table(1))
	p := s.open(t)
	p.hello(t, &routetablev1.Hello{
		Id: "a", SessionId: "1", Labels: map[string]string{"zone": "x"}, Build: "b", AdminAddress: "0.0.0.0:19000",
	})
	rt, c := p.recvTable(t)
	if diff := cmp.Diff(rt, want.Proto, protocmp.Transform()); diff != "" {
		t.Errorf("table (-got +want):\n%s", diff)
	}
	if c.GetRevision() != 1 || c.GetVersion() != want.Version {
		t.Errorf("got revision %d version %s, want 1 and %s", c.GetRevision(), c.GetVersion(), want.Version)
	}
	if d := s.waitState(t, "a", "pending"); d.GetVersion() != "" || d.GetSource() != "" {
		t.Errorf("before it has applied: version %q source %q, want none", d.GetVersion(), d.GetSource())
	}
	p.applied(t, want.Version, 1)
	d := s.waitState(t, "a", "applied")
	if d.GetAddress() != "127.0.0.1:19000" || d.GetSource() != "stream" || d.GetLabels()["zone"] != "x" || d.GetBuild() != "b" {
		t.Errorf("got %v", d)
	}
	p.heartbeat(t, want.Version, 42)
	eventually(t, "its requests are counted", func() bool { return s.row(t, "a").GetRequestsTotal() == 42 })
}

func TestADataPlaneThatHasTheVersionIsToldThatItIsCurrent(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	want := s.publish(t, table(1))
	p := s.join(t, "a", "1", want.Version)
	m := p.recv(t)
	if m.GetCurrent().GetVersion() != want.Version || m.GetCurrent().GetRevision() != 1 {
		t.Errorf("got %v, want current", m)
	}
	s.waitState(t, "a", "applied")
	if more := p.alive(t, want.Version); len(more) > 0 {
		t.Errorf("and then got %v, want nothing", more)
	}
}

func TestLatestWinsAndOneVersionIsInFlight(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	first := s.publish(t, table(1))
	p := s.join(t, "a", "1", "")
	p.recvTable(t)
	s.publish(t, table(2))
	last := s.publish(t, table(3))
	if before := p.alive(t, ""); len(before) > 0 {
		t.Fatalf("got %v while an answer was owed", before)
	}
	p.applied(t, first.Version, 1)
	if _, c := p.recvTable(t); c.GetVersion() != last.Version || c.GetRevision() != 3 {
		t.Errorf("got revision %d, want 3: the one between is skipped", c.GetRevision())
	}
	p.applied(t, last.Version, 3)
	s.waitState(t, "a", "applied")
}

func TestAHeartbeatAnswersForALostApplied(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	first := s.publish(t, table(1))
	p := s.join(t, "a", "1", "")
	p.recvTable(t)
	p.alive(t, first.Version)
	s.waitState(t, "a", "applied")
	second := s.publish(t, table(2))
	if _, c := p.recvTable(t); c.GetVersion() != second.Version {
		t.Errorf("got version %s, want the next", c.GetVersion())
	}
}

func TestARejectedVersionIsParkedUntilTheContentChanges(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	good := s.publish(t, table(1))
	p := s.join(t, "a", "1", good.Version)
	p.recv(t)
	bad := s.publish(t, table(2))
	p.recvTable(t)
	p.rejected(t, bad.Version, &routetablev1.Problem{Path: "port", Message: "taken\x1b[31m"}, &routetablev1.Problem{Message: "second"})
	d := s.waitState(t, "a", "rejected")
	if want := "port: taken [31m; second"; d.GetError() != want || d.GetVersion() != good.Version {
		t.Errorf("error %q version %s, want %q and the good one", d.GetError(), d.GetVersion(), want)
	}
	for range 3 {
		if before := p.alive(t, good.Version); len(before) > 0 {
			t.Fatalf("it was sent %v again", before)
		}
	}

	// Unless somebody asks for it.
	s.fleet.OfferAgain()
	if _, c := p.recvTable(t); c.GetVersion() != bad.Version {
		t.Errorf("offered %s again, want the rejected one", c.GetVersion())
	}
	p.rejected(t, bad.Version, &routetablev1.Problem{Message: "still"})
	if d := s.waitState(t, "a", "rejected"); d.GetError() != "still" {
		t.Errorf("error %q, want the new one", d.GetError())
	}

	next := s.publish(t, table(3))
	p.recvTable(t)
	p.applied(t, next.Version, 3)
	if d := s.waitState(t, "a", "applied"); d.GetError() != "" {
		t.Errorf("error %q after recovery", d.GetError())
	}
	// Going back to it is a change, and a new chance.
	again := s.publish(t, table(2))
	if _, c := p.recvTable(t); c.GetVersion() != bad.Version || c.GetRevision() != again.Revision {
		t.Errorf("got revision %d, want %d", c.GetRevision(), again.Revision)
	}
}

func TestABadVersionThatIsTakenBackLeavesNoTrace(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	good := s.publish(t, table(1))
	p := s.join(t, "a", "1", good.Version)
	p.recv(t)
	bad := s.publish(t, table(2))
	p.recvTable(t)
	p.rejected(t, bad.Version)
	s.waitState(t, "a", "rejected")
	s.publish(t, table(1))
	if m := p.recv(t); m.GetCurrent().GetRevision() != 3 {
		t.Errorf("got %v, want current with revision 3", m)
	}
	if d := s.waitState(t, "a", "applied"); d.GetError() != "" {
		t.Errorf("error %q", d.GetError())
	}
}

func TestAChangeTakenBackWhileInFlightIsPendingUntilItHasSettled(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	first := s.publish(t, table(1))
	p := s.join(t, "a", "1", first.Version)
	p.recv(t)
	s.waitState(t, "a", "applied")
	second := s.publish(t, table(2))
	p.recvTable(t)
	s.publish(t, table(1))
	// It still runs the desired version, but it has the other one in its hands.
	p.alive(t, first.Version)
	s.waitState(t, "a", "pending")

	p.applied(t, second.Version, second.Revision)
	if _, c := p.recvTable(t); c.GetVersion() != first.Version {
		t.Fatalf("got version %s, want the first one again", c.GetVersion())
	}
	s.waitState(t, "a", "pending")
	p.applied(t, first.Version, 3)
	s.waitState(t, "a", "applied")
}

func TestTablesOverFourMiB(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	want := s.publish(t, bigTable(6<<20))
	p := s.join(t, "a", "1", "")
	rt, c := p.recvTable(t)
	if c.GetCount() < 16 {
		t.Errorf("%d chunks: the test table is too small", c.GetCount())
	}
	if rt.GetEndpoints()[0].GetName() != want.Proto.GetEndpoints()[0].GetName() {
		t.Error("content differs")
	}
	p.applied(t, want.Version, 1)
	s.waitState(t, "a", "applied")
}

// A table that is being sent is left for a newer one: the last chunks of the old
// one never come.
func TestANewerTableInterruptsASlowSend(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	s.publish(t, bigTable(2<<20))
	p := s.join(t, "a", "1", "") // and reads nothing for now
	first := p.recv(t).GetChunk()
	small := s.publish(t, table(2))
	for {
		c := p.recv(t).GetChunk()
		if c.GetVersion() == small.Version {
			break
		}
		if c.GetIndex()+1 == first.GetCount() {
			t.Fatal("the old table was sent to its end")
		}
	}
	p.applied(t, small.Version, 2)
	s.waitState(t, "a", "applied")
	if n := gather(t, s.fleet)[`controlplane_pushes_total{result="abandoned"}`]; n != 1 {
		t.Errorf("%v abandoned pushes counted, want 1", n)
	}
}

// Frozen data planes that never read hold neither their slot nor anybody up.
func TestFrozenReceiversDelayNobody(t *testing.T) {
	const frozen = 8
	s := start(t, fleet.Options{ApplyDeadline: time.Hour}, fleet.ServerOptions{Slots: 2, SlotHold: 5 * time.Millisecond, SendDeadline: time.Hour})
	want := s.publish(t, bigTable(2<<20))
	for i := range frozen {
		s.join(t, fmt.Sprintf("frozen-%d", i), "1", "")
	}
	eventually(t, "all are known", func() bool { return len(s.fleet.DataPlanes()) == frozen })
	var live sync.WaitGroup
	for i := range 4 {
		id := fmt.Sprintf("live-%d", i)
		p := s.join(t, id, "1", "")
		live.Go(func() {
			if _, c, err := p.assemble(); err != nil || c.GetVersion() != want.Version {
				t.Errorf("%s: %v", id, err)
				return
			}
			p.applied(t, want.Version, 1)
		})
	}
	live.Wait()
	for i := range 4 {
		s.waitState(t, fmt.Sprintf("live-%d", i), "applied")
	}
	for i := range frozen {
		if d := s.waitState(t, fmt.Sprintf("frozen-%d", i), "pending"); d.GetVersion() != "" {
			t.Errorf("%s serves %s", d.GetId(), d.GetVersion())
		}
	}
}

func TestAReceiverThatDoesNotReadLosesItsStream(t *testing.T) {
	log := new(bytes.Buffer)
	s := start(t, fleet.Options{Log: slog.New(slog.NewTextHandler(log, nil))}, fleet.ServerOptions{SendDeadline: 50 * time.Millisecond})
	s.publish(t, bigTable(2<<20))
	p := s.join(t, "frozen", "1", "")
	s.waitState(t, "frozen", "disconnected")
	if err := p.recvEnd(); status.Code(err) != codes.Canceled {
		t.Errorf("the stream ended with %v, want CANCELED", err)
	}
	if !strings.Contains(log.String(), "does not read") {
		t.Errorf("log:\n%s", log)
	}
	if n := gather(t, s.fleet)[`controlplane_pushes_total{result="failed"}`]; n != 1 {
		t.Errorf("%v failed pushes counted, want 1", n)
	}
}

// Two hundred data planes under rapid changes: each ends at the newest version,
// sees revisions only grow, and never has two in flight.
func TestManyDataPlanesConvergeOnTheNewest(t *testing.T) {
	const planes, changes = 200, 50
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	s.publish(t, table(0))
	var all sync.WaitGroup
	for i := range planes {
		id := fmt.Sprintf("dp-%03d", i)
		p := s.join(t, id, "1", "")
		all.Go(func() {
			var last uint64
			for last != changes {
				_, c, err := p.assemble()
				if err != nil {
					t.Errorf("%s: %v", id, err)
					return
				}
				if c.GetRevision() <= last {
					t.Errorf("%s: revision %d after %d", id, c.GetRevision(), last)
					return
				}
				last = c.GetRevision()
				p.applied(t, c.GetVersion(), last)
			}
		})
	}
	for i := 1; i < changes; i++ {
		s.publish(t, table(i))
	}
	all.Wait()
	eventually(t, "all have applied", func() bool {
		return gather(t, s.fleet)[`controlplane_dataplanes{state="applied"}`] == planes
	})
}

func TestBothEndsOfVersionSkew(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	want := s.publish(t, table(1))
	p := s.open(t)
	hello := &routetablev1.Hello{Id: "future", SessionId: "1", State: &routetablev1.State{Source: 99}}
	hello.ProtoReflect().SetUnknown(unknownField(1000))
	p.hello(t, hello)
	p.recvTable(t)
	for range 3 {
		m := &routetablev1.SubscribeRequest{}
		m.ProtoReflect().SetUnknown(unknownField(999)) // a kind of message of a later release
		p.send(t, m)
	}
	p.applied(t, want.Version, 1)
	s.waitState(t, "future", "applied")
}

func unknownField(number protowire.Number) []byte {
	return protowire.AppendString(protowire.AppendTag(nil, number, protowire.BytesType), "from the future")
}

func TestHelloIsChecked(t *testing.T) {
	many := map[string]string{}
	for i := range 65 {
		many[fmt.Sprint(i)] = ""
	}
	ok := func() *routetablev1.Hello { return &routetablev1.Hello{Id: "a", SessionId: "1"} }
	tests := []struct {
		name   string
		change func(*routetablev1.Hello)
		want   string // in the error; empty: accepted
	}{
		{"as it should be", func(*routetablev1.Hello) {}, ""},
		{"longest id", func(h *routetablev1.Hello) { h.Id = strings.Repeat("x", 200) }, ""},
		{"no id", func(h *routetablev1.Hello) { h.Id = "" }, "id is empty"},
		{"id too long", func(h *routetablev1.Hello) { h.Id = strings.Repeat("x", 201) }, "id has 201 bytes, at most 200"},
		{"id with a line break", func(h *routetablev1.Hello) { h.Id = "a\nb" }, "control character"},
		{"no session", func(h *routetablev1.Hello) { h.SessionId = "" }, "session_id is empty"},
		{"too many labels", func(h *routetablev1.Hello) { h.Labels = many }, "65 labels, at most 64"},
		{"label without a name", func(h *routetablev1.Hello) { h.Labels = map[string]string{"": "x"} }, "empty name"},
		{"label too long", func(h *routetablev1.Hello) { h.Labels = map[string]string{"k": strings.Repeat("v", 257)} }, "label k has 257 bytes"},
		{"build too long", func(h *routetablev1.Hello) { h.Build = strings.Repeat("v", 301) }, "build has 301 bytes"},
	}
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	s.publish(t, table(1))
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := ok()
			test.change(h)
			p := s.open(t)
			p.hello(t, h)
			if test.want == "" {
				p.recvTable(t)
				return
			}
			err := p.recvEnd()
			if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want INVALID_ARGUMENT with %q", err, test.want)
			}
		})
	}
}

func TestStreamsThatBreakTheRulesAreEnded(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{HelloTimeout: patience})
	s.publish(t, table(1))
	t.Run("no hello", func(t *testing.T) {
		s := start(t, fleet.Options{}, fleet.ServerOptions{HelloTimeout: time.Millisecond})
		s.publish(t, table(1))
		if err := s.open(t).recvEnd(); status.Code(err) != codes.Canceled {
			t.Errorf("got %v, want CANCELED", err)
		}
	})
	t.Run("another first message", func(t *testing.T) {
		p := s.open(t)
		p.heartbeat(t, "", 0)
		if err := p.recvEnd(); status.Code(err) != codes.InvalidArgument {
			t.Errorf("got %v, want INVALID_ARGUMENT", err)
		}
	})
	t.Run("a second hello", func(t *testing.T) {
		p := s.join(t, "twice", "1", "")
		p.hello(t, &routetablev1.Hello{Id: "twice", SessionId: "2"})
		if err := p.recvEnd(); status.Code(err) != codes.InvalidArgument {
			t.Errorf("got %v, want INVALID_ARGUMENT", err)
		}
	})
}

func TestReportsAreChecked(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	s.publish(t, table(1))
	for _, bad := range []struct{ name, version string }{
		{"too long", strings.Repeat("v", 1<<20)},
		{"for a terminal", "\x1b[2J"},
	} {
		for kind, report := range map[string]func(*player){
			"applied":   func(p *player) { p.applied(t, bad.version, 1) },
			"rejected":  func(p *player) { p.rejected(t, bad.version) },
			"heartbeat": func(p *player) { p.heartbeat(t, bad.version, 0) },
		} {
			t.Run(kind+" "+bad.name, func(t *testing.T) {
				p := s.join(t, kind+bad.name, "1", "")
				p.recvTable(t)
				report(p)
				if err := p.recvEnd(); status.Code(err) != codes.InvalidArgument {
					t.Errorf("got %v, want INVALID_ARGUMENT", err)
				}
				if d := s.waitState(t, kind+bad.name, "disconnected"); d.GetVersion() != "" {
					t.Errorf("version is shown as %q", d.GetVersion())
				}
			})
		}
	}
}

func TestARejectionOfWhatWasNotSentChangesNothing(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	first := s.publish(t, table(1))
	p := s.join(t, "a", "1", first.Version)
	p.recv(t)
	p.rejected(t, first.Version)
	p.rejected(t, "never sent")
	p.alive(t, first.Version)
	if d := s.waitState(t, "a", "applied"); d.GetError() != "" {
		t.Errorf("error %q", d.GetError())
	}
	second := s.publish(t, table(2))
	p.recvTable(t)
	p.rejected(t, "never sent")
	p.alive(t, first.Version)
	s.waitState(t, "a", "pending")
	p.applied(t, second.Version, 2)
	s.waitState(t, "a", "applied")
}

func TestNothingIsServedBeforeThereIsATable(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	if err := s.open(t).recvEnd(); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v, want UNAVAILABLE", err)
	}
}

func TestStopEndsAllStreams(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	want := s.publish(t, table(1))
	p := s.join(t, "a", "1", want.Version)
	p.recv(t)
	s.service.Stop()
	if err := p.recvEnd(); status.Code(err) != codes.Canceled {
		t.Errorf("got %v, want CANCELED", err)
	}
}

func TestGoodbyeIsForgottenAndAnEndIsNot(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	want := s.publish(t, table(1))
	leaves := s.join(t, "leaves", "1", want.Version)
	vanishes := s.join(t, "vanishes", "1", want.Version)
	leaves.recv(t)
	vanishes.recv(t)
	leaves.send(t, &routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Goodbye{Goodbye: &routetablev1.Goodbye{}}})
	if err := leaves.recvEnd(); !errors.Is(err, io.EOF) {
		t.Errorf("after goodbye the stream ended with %v, want a clean end", err)
	}
	vanishes.close()
	s.waitState(t, "vanishes", "disconnected")
	if s.row(t, "leaves") != nil {
		t.Error("the one that said goodbye is still known")
	}
}

// captureCodec notes the bytes of every chunk it decodes.
type captureCodec struct {
	encoding.CodecV2
	digests chan [sha256.Size]byte
}

func (c captureCodec) Unmarshal(data mem.BufferSlice, v any) error {
	err := c.CodecV2.Unmarshal(data, v)
	if m, ok := v.(*routetablev1.SubscribeResponse); ok && m.GetChunk() != nil {
		c.digests <- sha256.Sum256(data.Materialize())
	}
	return err
}

func TestAllReceiversGetIdenticalBytes(t *testing.T) {
	const receivers = 8
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	want := s.publish(t, bigTable(768<<10))
	received := make([][][sha256.Size]byte, receivers)
	for round := range 2 { // the second round shows that the first has changed nothing
		var all sync.WaitGroup
		for i := range receivers {
			c := captureCodec{encoding.GetCodecV2(grpcproto.Name), make(chan [sha256.Size]byte, 100)}
			p := s.open(t, grpc.WithDefaultCallOptions(grpc.ForceCodecV2(c)))
			p.hello(t, &routetablev1.Hello{Id: fmt.Sprintf("%d-%d", round, i), SessionId: "1"})
			all.Go(func() {
				if _, _, err := p.assemble(); err != nil {
					t.Error(err)
				}
				close(c.digests)
				for d := range c.digests {
					received[i] = append(received[i], d)
				}
				p.applied(t, want.Version, 1)
			})
		}
		all.Wait()
	}
	for i, r := range received {
		if diff := cmp.Diff(r, received[0]); diff != "" || len(r) < 4 {
			t.Errorf("receiver %d of %d messages differs from the first:\n%s", i, len(r), diff)
		}
	}
}
