// Package fleettest plays data planes, for the tests of what is built on a
// fleet: a real gRPC client that applies or rejects what it is sent.
package fleettest

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"io"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

// DataPlane is a played data plane. Its methods may be called from several
// goroutines.
type DataPlane struct {
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu       sync.Mutex
	tables   []*routetablev1.RouteTable
	backends []*routetablev1.BackendReport
	inFlight map[string]uint64
	seen     *routetablev1.Heartbeat
	requests uint64 // that it has told of
}

// Tell sets what it reports about backends whenever it is asked.
func (d *DataPlane) Tell(backends ...*routetablev1.BackendReport) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.backends = backends
}

// See sets the traffic, endpoints and samples that it reports whenever it is asked. The
// requests go on: there are as many more each time.
func (d *DataPlane) See(seen *routetablev1.Heartbeat) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen = seen
}

// SetInFlight sets the requests in flight to a backend that it tells when it is asked.
func (d *DataPlane) SetInFlight(url string, n uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inFlight[url] = n
}

// Decide says why a table is rejected, with no reasons that it is applied, or ready when
// that was asked.
type Decide func(*routetablev1.RouteTable) (reasons []string)

// Apply applies everything.
func Apply(*routetablev1.RouteTable) []string { return nil }

// Start connects a data plane that stays until Stop or the end of the test. It
// starts with the version and revision given; both may be zero.
func Start(t *testing.T, server, id string, state *routetablev1.State, decide Decide) *DataPlane {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+server, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	d := &DataPlane{cancel: cancel, inFlight: map[string]uint64{}}
	stream, err := routetablev1.NewRouteTableServiceClient(conn).Subscribe(ctx)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	hello := &routetablev1.Hello{
		Id: id, SessionId: rand.Text(), AdminAddress: "127.0.0.1:19000", Build: "test", State: state,
		Features: []routetablev1.Feature{routetablev1.Feature_FEATURE_PREPARE},
	}
	if err := stream.Send(&routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Hello{Hello: hello}}); err != nil {
		cancel()
		t.Fatal(err)
	}
	d.done.Go(func() {
		defer conn.Close()
		d.follow(stream, state, decide)
	})
	t.Cleanup(d.Stop)
	return d
}

// Stop breaks the connection without a goodbye.
func (d *DataPlane) Stop() {
	d.cancel()
	d.done.Wait()
}

// Tables returns all tables it was sent, in order.
func (d *DataPlane) Tables() []*routetablev1.RouteTable {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]*routetablev1.RouteTable{}, d.tables...)
}

// follow answers until the stream ends.
func (d *DataPlane) follow(stream routetablev1.RouteTableService_SubscribeClient, state *routetablev1.State, decide Decide) {
	var data []byte
	for {
		m, err := stream.Recv()
		if err != nil {
			return
		}
		if r := m.GetReport(); r != nil && stream.Send(d.report(state, r)) != nil {
			return
		}
		answer := applied(m.GetCommit())
		if c := m.GetChunk(); c != nil {
			if c.GetIndex() == 0 {
				data = nil
			}
			data = append(data, c.GetData()...)
			if c.GetIndex()+1 == c.GetCount() {
				answer = d.answer(c, data, decide)
			}
		}
		if answer == nil {
			continue
		}
		if a := answer.GetApplied(); a != nil {
			state = &routetablev1.State{Version: a.GetVersion(), Revision: a.GetRevision(), Source: routetablev1.Source_SOURCE_STREAM}
		}
		if stream.Send(answer) != nil {
			return
		}
	}
}

// applied says that a table has been put in force, nil when none is to be.
func applied(what interface {
	GetVersion() string
	GetRevision() uint64
}) *routetablev1.SubscribeRequest {
	if what.GetVersion() == "" {
		return nil
	}
	return &routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Applied{
		Applied: &routetablev1.Applied{Version: what.GetVersion(), Revision: what.GetRevision()},
	}}
}

// report is the heartbeat that was asked for.
func (d *DataPlane) report(state *routetablev1.State, r *routetablev1.Report) *routetablev1.SubscribeRequest {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := &routetablev1.Heartbeat{State: state, Endpoints: d.seen.GetEndpoints(), Samples: d.seen.GetSamples()}
	if t := d.seen.GetTraffic(); t != nil {
		d.requests += t.GetRequests()
		h.Traffic = &routetablev1.Traffic{Requests: d.requests}
	}
	for _, url := range r.GetWatch() {
		h.Watched = append(h.Watched, &routetablev1.InFlight{Url: url, Requests: d.inFlight[url]})
	}
	if r.GetBackends() {
		h.Backends = d.backends
	}
	return &routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Heartbeat{Heartbeat: h}}
}

// answer decides about a whole table.
func (d *DataPlane) answer(c *routetablev1.Chunk, data []byte, decide Decide) *routetablev1.SubscribeRequest {
	rt, err := unpack(data)
	var reasons []string
	if err != nil {
		reasons = []string{err.Error()}
	} else {
		d.mu.Lock()
		d.tables = append(d.tables, rt)
		d.mu.Unlock()
		reasons = decide(rt)
	}
	switch {
	case len(reasons) == 0 && c.GetHold():
		return &routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Prepared{
			Prepared: &routetablev1.Prepared{Version: c.GetVersion()},
		}}
	case len(reasons) == 0:
		return applied(c)
	}
	r := &routetablev1.Rejected{Version: c.GetVersion(), Revision: c.GetRevision()}
	for _, reason := range reasons {
		r.Problems = append(r.Problems, &routetablev1.Problem{Message: reason})
	}
	return &routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Rejected{Rejected: r}}
}

func unpack(data []byte) (*routetablev1.RouteTable, error) {
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(z)
	if err != nil {
		return nil, err
	}
	rt := &routetablev1.RouteTable{}
	return rt, proto.Unmarshal(raw, rt)
}
