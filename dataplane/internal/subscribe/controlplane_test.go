package subscribe

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/proto"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

// patience is how long a test waits for something that must happen.
const patience = 20 * time.Second

// controlPlane is the other side of the protocol, a real gRPC server that a test
// plays message by message.
type controlPlane struct {
	routetablev1.UnimplementedRouteTableServiceServer
	address string
	server  *grpc.Server
	streams chan *peer
	// mute: heartbeats get no answer.
	mute atomic.Bool
}

// peer is one stream of one data plane, as the control plane sees it.
type peer struct {
	hello *routetablev1.Hello
	// reports are its messages but heartbeats; closed at the end of the stream.
	reports    chan *routetablev1.SubscribeRequest
	heartbeats chan *routetablev1.Heartbeat // the newest

	mu     sync.Mutex // for sending
	stream grpc.BidiStreamingServer[routetablev1.SubscribeRequest, routetablev1.SubscribeResponse]
	end    chan error // ends the stream from this side
}

// startControlPlane serves on an address, until the test ends or stop.
func startControlPlane(t *testing.T, address string, change func(*controlPlane)) *controlPlane {
	t.Helper()
	var l net.Listener
	eventually(t, "open "+address, func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	cp := &controlPlane{
		address: l.Addr().String(),
		server:  grpc.NewServer(grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true})),
		streams: make(chan *peer, 100),
	}
	if change != nil {
		change(cp)
	}
	routetablev1.RegisterRouteTableServiceServer(cp.server, cp)
	var g sync.WaitGroup
	g.Go(func() {
		if err := cp.server.Serve(l); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(func() {
		cp.stop()
		g.Wait()
	})
	return cp
}

// stop cuts all streams and closes the port.
func (cp *controlPlane) stop() { cp.server.Stop() }

// Subscribe implements the service.
func (cp *controlPlane) Subscribe(stream grpc.BidiStreamingServer[routetablev1.SubscribeRequest, routetablev1.SubscribeResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	p := &peer{
		hello: first.GetHello(), stream: stream, end: make(chan error, 1),
		reports: make(chan *routetablev1.SubscribeRequest, 100), heartbeats: make(chan *routetablev1.Heartbeat, 1),
	}
	cp.streams <- p
	go func() {
		defer close(p.reports)
		for {
			m, err := stream.Recv()
			if err != nil {
				select {
				case p.end <- nil:
				default:
				}
				return
			}
			if m.GetHeartbeat() == nil {
				p.reports <- m
				continue
			}
			select {
			case <-p.heartbeats:
			default:
			}
			p.heartbeats <- m.GetHeartbeat()
			if !cp.mute.Load() {
				_ = p.send(&routetablev1.SubscribeResponse{Message: &routetablev1.SubscribeResponse_Alive{Alive: &routetablev1.Alive{}}})
			}
		}
	}()
	return <-p.end
}

// accept waits for the next data plane.
func (cp *controlPlane) accept(t *testing.T) *peer {
	t.Helper()
	select {
	case p := <-cp.streams:
		if p.hello == nil {
			t.Fatal("the first message is not a hello")
		}
		return p
	case <-time.After(patience):
		t.Fatal("no data plane came")
		return nil
	}
}

func (p *peer) send(m *routetablev1.SubscribeResponse) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stream.Send(m)
}

func (p *peer) mustSend(t *testing.T, m *routetablev1.SubscribeResponse) {
	t.Helper()
	if err := p.send(m); err != nil {
		t.Fatalf("send: %v", err)
	}
}

func (p *peer) sendChunks(t *testing.T, chunks ...*routetablev1.Chunk) {
	t.Helper()
	for _, c := range chunks {
		p.mustSend(t, &routetablev1.SubscribeResponse{Message: &routetablev1.SubscribeResponse_Chunk{Chunk: c}})
	}
}

func (p *peer) sendCurrent(t *testing.T, version string, revision uint64) {
	t.Helper()
	p.mustSend(t, &routetablev1.SubscribeResponse{Message: &routetablev1.SubscribeResponse_Current{
		Current: &routetablev1.Current{Version: version, Revision: revision},
	}})
}

// chunksOf encodes a table as the control plane does.
func chunksOf(t testing.TB, rt *routetablev1.RouteTable, version string, revision uint64, size int) []*routetablev1.Chunk {
	t.Helper()
	wire, err := proto.Marshal(rt)
	if err != nil {
		t.Fatal(err)
	}
	return cut(version, revision, len(wire), zip(t, wire), size)
}

// next waits for the next report.
func (p *peer) next(t *testing.T) *routetablev1.SubscribeRequest {
	t.Helper()
	select {
	case m, ok := <-p.reports:
		if !ok {
			t.Fatal("the data plane ended the stream")
		}
		return m
	case <-time.After(patience):
		t.Fatal("no report came")
		return nil
	}
}

func (p *peer) wantApplied(t *testing.T, version string, revision uint64) {
	t.Helper()
	m := p.next(t)
	if a := m.GetApplied(); a == nil || a.GetVersion() != version || a.GetRevision() != revision {
		t.Fatalf("report %v, want applied %s revision %d", m, version, revision)
	}
}

func (p *peer) wantRejected(t *testing.T, version string, revision uint64) []*routetablev1.Problem {
	t.Helper()
	m := p.next(t)
	r := m.GetRejected()
	if r == nil || r.GetVersion() != version || r.GetRevision() != revision || len(r.GetProblems()) == 0 {
		t.Fatalf("report %v, want rejected %s revision %d with problems", m, version, revision)
	}
	return r.GetProblems()
}

// wantEnd waits for the end of the stream.
func (p *peer) wantEnd(t *testing.T) {
	t.Helper()
	for deadline := time.After(patience); ; {
		select {
		case _, ok := <-p.reports:
			if !ok {
				return
			}
		case <-deadline:
			t.Fatal("the stream goes on")
		}
	}
}

// hungServer accepts connections and never says a word. It returns its address
// and a channel with an element for each connection.
func hungServer(t *testing.T) (address string, accepted <-chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	came := make(chan struct{}, 100)
	var g sync.WaitGroup
	g.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					t.Error(err)
				}
				return
			}
			came <- struct{}{}
			g.Go(func() {
				io.Copy(io.Discard, c)
				c.Close()
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		g.Wait()
	})
	return l.Addr().String(), came
}

// eventually polls until f returns nil.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
