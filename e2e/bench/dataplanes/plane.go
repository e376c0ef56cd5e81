//go:build linux

package main

import (
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// The pauses between two connections, as the real data plane makes them.
const (
	firstDelay = 200 * time.Millisecond
	maxDelay   = 5 * time.Second
)

// plane is one data plane.
type plane struct {
	fleet *fleet
	id    string

	// settled and settledAt are about fleet.settle, under fleet.mu.
	settled   string
	settledAt float64

	mu sync.Mutex
	// stream is nil while there is none.
	stream *stream
	// What serves requests, if this were a real one.
	version  string
	revision uint64
	// unanswered is when the heartbeat was sent that nothing has been heard since.
	unanswered time.Time

	// The table that is being received. They belong to the goroutine that receives.
	transfer transfer
	next     uint32
	offset   int
}

// follow keeps a stream open for ever.
func (p *plane) follow() {
	delay := float64(firstDelay)
	for {
		began := time.Now()
		p.session()
		p.fleet.settle(p, "")
		if time.Since(began) >= maxDelay {
			delay = float64(firstDelay)
		}
		time.Sleep(time.Duration(min(delay*(0.5+mathrand.Float64()), float64(maxDelay))))
		delay = min(delay*1.6, float64(maxDelay)/1.5)
	}
}

// session is one stream.
func (p *plane) session() {
	hello := &routetablev1.Hello{Id: p.id, SessionId: rand.Text(), Build: "simulated", AdminAddress: "127.0.0.1:0", State: p.state()}
	if p.fleet.deltas {
		hello.Features = []routetablev1.Feature{routetablev1.Feature_FEATURE_DELTA}
	}
	s := &stream{message: p.take, counted: p.fleet}
	p.transfer, p.next, p.offset = transfer{}, 0, 0
	if s.open(p.fleet.controlPlane, encoded(&routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Hello{Hello: hello}})) == nil {
		p.fleet.streams.Add(1)
		p.hold(s)
		p.beat()
		_ = s.receive() // whatever the reason, there will be another stream
		p.hold(nil)
	}
	if s.conn != nil {
		_ = s.conn.Close()
	}
	if s.collected != nil {
		freeCollection(s.collected)
	}
}

func (p *plane) hold(s *stream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stream, p.unanswered = s, time.Time{}
}

// state is what serves requests.
func (p *plane) state() *routetablev1.State {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.version == "" {
		return &routetablev1.State{}
	}
	return &routetablev1.State{Version: p.version, Revision: p.revision, Source: routetablev1.Source_SOURCE_STREAM}
}

// beat sends a heartbeat, or gives up a control plane that has not answered the one
// before.
func (p *plane) beat() {
	heartbeat := &routetablev1.Heartbeat{State: p.state(), RequestsTotal: uint64(time.Now().Unix())}
	p.mu.Lock()
	s, unanswered := p.stream, p.unanswered
	if s != nil && unanswered.IsZero() {
		p.unanswered = time.Now()
	}
	p.mu.Unlock()
	switch {
	case s == nil:
	case !unanswered.IsZero() && time.Since(unanswered) > silence:
		_ = s.conn.Close() // what receives learns of it
	default:
		p.send(s, &routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Heartbeat{Heartbeat: heartbeat}})
	}
}

// send leaves errors to whoever receives, to whom the connection ends as well.
func (p *plane) send(s *stream, m *routetablev1.SubscribeRequest) { _ = s.send(encoded(m)) }

func encoded(m *routetablev1.SubscribeRequest) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

var (
	chunkField = (&routetablev1.SubscribeResponse{}).ProtoReflect().Descriptor().Fields().ByName("chunk").Number()
	dataField  = (&routetablev1.Chunk{}).ProtoReflect().Descriptor().Fields().ByName("data").Number()
)

// take acts on one message of the control plane.
func (p *plane) take(message []byte) error {
	p.mu.Lock()
	p.unanswered = time.Time{}
	p.mu.Unlock()
	var chunk []byte
	err := routetable.Walk(message, func(f routetable.Field) bool {
		if f.Number == chunkField {
			chunk = message[f.Value:f.End]
		}
		return true
	})
	if err != nil {
		return err
	}
	if chunk != nil {
		return p.takeChunk(chunk)
	}
	var m routetablev1.SubscribeResponse
	if err := proto.Unmarshal(message, &m); err != nil {
		return err
	}
	switch m := m.GetMessage().(type) {
	case *routetablev1.SubscribeResponse_Current:
		p.run(m.Current.GetVersion(), m.Current.GetRevision())
		p.beat()
	case *routetablev1.SubscribeResponse_Report:
		p.beat()
	}
	return nil
}

// takeChunk acts on one chunk, of which the data are not copied.
func (p *plane) takeChunk(message []byte) error {
	var head, data []byte
	err := routetable.Walk(message, func(f routetable.Field) bool {
		if f.Number == dataField {
			data = message[f.Value:f.End]
		} else {
			head = append(head, message[f.Start:f.End]...)
		}
		return true
	})
	var c routetablev1.Chunk
	if err == nil {
		err = proto.Unmarshal(head, &c)
	}
	if err != nil {
		return err
	}
	t := transfer{version: c.GetVersion(), base: c.GetBase(), encoding: c.GetEncoding()}
	if c.GetIndex() == 0 {
		p.transfer, p.next, p.offset = t, 0, 0
	}
	if t != p.transfer || c.GetIndex() != p.next {
		return fmt.Errorf("chunk %d of %v where %d of %v was due", c.GetIndex(), t, p.next, p.transfer)
	}
	if err := p.fleet.received.of(t).take(p.offset, data); err != nil {
		return err
	}
	p.next++
	p.offset += len(data)
	if p.next == c.GetCount() {
		p.complete(&c)
	}
	return nil
}

// complete answers a table of which all chunks have come. One that it cannot make of a
// delta it asks for as a whole.
func (p *plane) complete(c *routetablev1.Chunk) {
	f, t := p.fleet, p.transfer
	var err error
	if t.base != "" && t.base != p.state().GetVersion() {
		err = fmt.Errorf("a delta from version %s, which it does not serve", t.base)
	} else {
		err = f.received.verify(t, p.offset, c.GetDecodedSize())
	}
	switch {
	case err != nil && t.base != "":
		f.resent.Add(1)
		p.send(p.stream, &routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Resend{Resend: &routetablev1.Resend{
			Version: c.GetVersion(), Reason: err.Error(),
		}}})
		return
	case err != nil:
		f.refused.Add(1)
		fmt.Fprintf(os.Stderr, "%s: version %s refused: %v\n", p.id, t.version, err)
		p.send(p.stream, &routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Rejected{Rejected: &routetablev1.Rejected{
			Version: c.GetVersion(), Revision: c.GetRevision(), Problems: []*routetablev1.Problem{{Message: err.Error()}},
		}}})
		return
	}
	if t.base == "" {
		f.whole.Add(1)
	} else {
		f.deltasIn.Add(1)
	}
	p.send(p.stream, &routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Applied{Applied: &routetablev1.Applied{
		Version: c.GetVersion(), Revision: c.GetRevision(),
	}}})
	p.run(c.GetVersion(), c.GetRevision())
}

// run notes what serves requests now.
func (p *plane) run(version string, revision uint64) {
	p.mu.Lock()
	p.version, p.revision = version, revision
	p.mu.Unlock()
	p.fleet.settle(p, version)
}

// in and out count bytes.
func (f *fleet) in(n int)  { f.bytesIn.Add(int64(n)) }
func (f *fleet) out(n int) { f.bytesOut.Add(int64(n)) }
