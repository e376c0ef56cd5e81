package fleet_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"reverseproxy/controlplane/internal/fleet"
	fleetv1 "reverseproxy/proto/fleet/v1"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of a test; nothing is concluded from its length.
const patience = 20 * time.Second

// eventually polls until the condition holds.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("not in %s: %s", patience, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// clock is moved by hand.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// table returns a route table that differs by n.
func table(n int) *routetablev1.RouteTable {
	return &routetablev1.RouteTable{Port: uint32(1 + n), Endpoints: []*routetablev1.Endpoint{{
		Name: "e", Path: &routetablev1.Endpoint_Exact{Exact: "/e"},
		Pool: []*routetablev1.Backend{{Url: "http://127.0.0.1:1", Weight: 1}},
	}}}
}

// bigTable returns a table of about that many bytes that do not compress below
// three quarters of it.
func bigTable(size int) *routetablev1.RouteTable {
	noise := make([]byte, size*3/4)
	_, _ = rand.Read(noise)
	rt := table(1)
	rt.Endpoints[0].Name = base64.StdEncoding.EncodeToString(noise)
	return rt
}

// server is a control plane's stream service behind a real listener.
type server struct {
	fleet   *fleet.Fleet
	service *fleet.Server
	addr    string
	now     func() time.Time
}

func start(t *testing.T, o fleet.Options, so fleet.ServerOptions) *server {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{fleet: fleet.New(o), addr: lis.Addr().String(), now: o.Now}
	if s.now == nil {
		s.now = time.Now
	}
	s.service = fleet.NewServer(s.fleet, so)
	g := grpc.NewServer(fleet.GRPCOptions()...)
	routetablev1.RegisterRouteTableServiceServer(g, s.service)
	var serving sync.WaitGroup
	serving.Go(func() { _ = g.Serve(lis) })
	t.Cleanup(func() {
		s.service.Stop()
		g.Stop()
		serving.Wait()
	})
	return s
}

// publish makes a table the desired one.
func (s *server) publish(t *testing.T, rt *routetablev1.RouteTable) *fleet.Table {
	t.Helper()
	return publish(t, s.fleet, rt, s.now())
}

// publish makes a table the desired one of a fleet, under the next revision.
func publish(t testing.TB, f *fleet.Fleet, rt *routetablev1.RouteTable, now time.Time) *fleet.Table {
	t.Helper()
	revision := uint64(1)
	if cur := f.Desired(); cur != nil {
		revision = cur.Revision + 1
	}
	next, err := fleet.NewTable(rt, routetable.Version(rt), revision, now)
	if err != nil {
		t.Fatal(err)
	}
	return f.Publish(next)
}

// row returns the only data plane with the id.
func (s *server) row(t *testing.T, id string) *fleetv1.DataPlane {
	t.Helper()
	var found *fleetv1.DataPlane
	for _, d := range s.fleet.DataPlanes() {
		if d.GetId() == id {
			if found != nil {
				t.Fatalf("two rows for %s", id)
			}
			found = d
		}
	}
	return found
}

// waitState waits until the data plane is in the state.
func (s *server) waitState(t *testing.T, id, state string) *fleetv1.DataPlane {
	t.Helper()
	var d *fleetv1.DataPlane
	eventually(t, fmt.Sprintf("%s is %s", id, state), func() bool {
		d = s.row(t, id)
		return d != nil && fleet.StateName(d.GetState()) == state
	})
	return d
}

// player plays a data plane on a real stream.
type player struct {
	stream routetablev1.RouteTableService_SubscribeClient
	conn   *grpc.ClientConn
	cancel context.CancelFunc

	// skipReports: recv leaves out, and counts, that it is to report.
	skipReports bool
	skipped     int
}

// open opens a stream and says nothing.
func (s *server) open(t *testing.T, opts ...grpc.DialOption) *player {
	t.Helper()
	opts = append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	conn, err := grpc.NewClient("passthrough:///"+s.addr, opts...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := routetablev1.NewRouteTableServiceClient(conn).Subscribe(ctx)
	if err != nil {
		t.Fatal(err)
	}
	p := &player{stream: stream, conn: conn, cancel: cancel}
	t.Cleanup(p.close)
	return p
}

// join opens a stream and says hello.
func (s *server) join(t *testing.T, id, session, version string) *player {
	t.Helper()
	p := s.open(t)
	p.hello(t, &routetablev1.Hello{Id: id, SessionId: session, State: &routetablev1.State{Version: version}})
	return p
}

// close breaks the connection without a word.
func (p *player) close() {
	p.cancel()
	_ = p.conn.Close()
}

func (p *player) send(t *testing.T, m *routetablev1.SubscribeRequest) {
	t.Helper()
	if err := p.stream.Send(m); err != nil {
		t.Fatalf("send: %v", err)
	}
}

func (p *player) hello(t *testing.T, h *routetablev1.Hello) {
	t.Helper()
	p.send(t, &routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Hello{Hello: h}})
}

func (p *player) applied(t *testing.T, version string, revision uint64) {
	t.Helper()
	p.send(t, &routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Applied{
		Applied: &routetablev1.Applied{Version: version, Revision: revision},
	}})
}

func (p *player) rejected(t *testing.T, version string, problems ...*routetablev1.Problem) {
	t.Helper()
	p.send(t, &routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Rejected{
		Rejected: &routetablev1.Rejected{Version: version, Problems: problems},
	}})
}

func (p *player) heartbeat(t *testing.T, version string, requests uint64) {
	t.Helper()
	p.send(t, &routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Heartbeat{
		Heartbeat: &routetablev1.Heartbeat{
			State:         &routetablev1.State{Version: version, Source: routetablev1.Source_SOURCE_STREAM},
			RequestsTotal: requests,
		},
	}})
}

// recv receives the next message that is not about its place.
func (p *player) recv(t *testing.T) *routetablev1.SubscribeResponse {
	t.Helper()
	for {
		m, err := p.stream.Recv()
		if err != nil {
			t.Fatalf("receive: %v", err)
		}
		switch {
		case m.GetPlacement() != nil:
		case p.skipReports && m.GetReport() != nil:
			p.skipped++
		default:
			return m
		}
	}
}

// recvEnd receives until the stream ends and returns why.
func (p *player) recvEnd() error {
	for {
		if _, err := p.stream.Recv(); err != nil {
			return err
		}
	}
}

// recvTurn answers what it is asked until the stream ends, and returns why.
func (p *player) recvTurn(version string) error {
	for {
		m, err := p.stream.Recv()
		if err != nil {
			return err
		}
		if m.GetReport() != nil {
			// An error is that of the stream, which the next Recv returns.
			_ = p.stream.Send(&routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Heartbeat{
				Heartbeat: &routetablev1.Heartbeat{State: &routetablev1.State{Version: version}},
			}})
		}
	}
}

// alive asks for a sign of life and returns what came before it: nothing, when
// there was nothing to send.
func (p *player) alive(t *testing.T, version string) (before []*routetablev1.SubscribeResponse) {
	t.Helper()
	p.heartbeat(t, version, 0)
	for {
		m := p.recv(t)
		if m.GetAlive() != nil {
			return before
		}
		before = append(before, m)
	}
}

// recvTable receives one whole table and checks that it is what it says.
func (p *player) recvTable(t *testing.T) (*routetablev1.RouteTable, *routetablev1.Chunk) {
	t.Helper()
	rt, c, err := p.assemble()
	if err != nil {
		t.Fatal(err)
	}
	return rt, c
}

// assemble puts the chunks of the next whole table together.
func (p *player) assemble() (*routetablev1.RouteTable, *routetablev1.Chunk, error) {
	var data []byte
	var next uint32
	for {
		m, err := p.stream.Recv()
		if err != nil {
			return nil, nil, err
		}
		c := m.GetChunk()
		if c == nil {
			continue
		}
		if c.GetIndex() == 0 {
			data, next = nil, 0
		}
		if c.GetIndex() != next {
			return nil, nil, fmt.Errorf("chunk %d, want %d", c.GetIndex(), next)
		}
		next++
		data = append(data, c.GetData()...)
		if next < c.GetCount() {
			continue
		}
		rt, err := decode(c, data)
		return rt, c, err
	}
}

// decode unpacks a table and compares it with what its chunks said.
func decode(c *routetablev1.Chunk, data []byte) (*routetablev1.RouteTable, error) {
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(z)
	if err != nil {
		return nil, err
	}
	if uint64(len(raw)) != c.GetDecodedSize() {
		return nil, fmt.Errorf("decoded %d bytes, announced %d", len(raw), c.GetDecodedSize())
	}
	rt := &routetablev1.RouteTable{}
	if err := proto.Unmarshal(raw, rt); err != nil {
		return nil, err
	}
	if v := routetable.Version(rt); v != c.GetVersion() {
		return nil, fmt.Errorf("version is %s, announced %s", v, c.GetVersion())
	}
	return rt, nil
}
