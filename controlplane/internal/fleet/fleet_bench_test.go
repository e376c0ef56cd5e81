package fleet_test

import (
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"reverseproxy/controlplane/internal/fleet"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// endpoints returns a table like those in use: three backends each.
func endpoints(n, generation int) *routetablev1.RouteTable {
	rt := &routetablev1.RouteTable{Port: uint32(1 + generation)}
	for i := range n {
		rt.Endpoints = append(rt.Endpoints, &routetablev1.Endpoint{
			Name: fmt.Sprintf("endpoint-%06d", i), Path: &routetablev1.Endpoint_Exact{Exact: fmt.Sprintf("/service/%d", i)},
			Pool: []*routetablev1.Backend{
				{Url: fmt.Sprintf("http://10.0.%d.%d:8080", i/250, i%250), Weight: 1},
				{Url: fmt.Sprintf("http://10.1.%d.%d:8080", i/250, i%250), Weight: 1},
				{Url: fmt.Sprintf("http://10.2.%d.%d:8080", i/250, i%250), Weight: 1},
			},
		})
	}
	return rt
}

// BenchmarkPublish is the work that a change costs once, whatever the number of
// data planes.
func BenchmarkPublish(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprintf("endpoints=%d", n), func(b *testing.B) {
			f := fleet.New(fleet.Options{})
			tables := []*routetablev1.RouteTable{endpoints(n, 0), endpoints(n, 1)}
			for i := 0; b.Loop(); i++ {
				publish(b, f, tables[i%2], time.Now())
			}
		})
	}
}

// BenchmarkDistribute measures a change from publishing until every data plane
// has acknowledged it. The data planes run in the same process and do not unpack
// what they are sent.
func BenchmarkDistribute(b *testing.B) {
	for _, size := range []struct{ planes, endpoints int }{{10, 100}, {1000, 100}, {1000, 10_000}} {
		b.Run(fmt.Sprintf("dataplanes=%d/endpoints=%d", size.planes, size.endpoints), func(b *testing.B) {
			distribute(b, size.planes, size.endpoints)
		})
	}
}

func distribute(b *testing.B, planes, n int) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	f := fleet.New(fleet.Options{})
	tables := []*routetablev1.RouteTable{endpoints(n, 0), endpoints(n, 1)}
	publish(b, f, tables[1], time.Now())
	service := fleet.NewServer(f, fleet.ServerOptions{})
	g := grpc.NewServer(fleet.GRPCOptions()...)
	routetablev1.RegisterRouteTableServiceServer(g, service)
	var running sync.WaitGroup
	running.Go(func() { _ = g.Serve(lis) })
	acknowledged := make(chan struct{}, planes)
	for i := range planes {
		conn, err := grpc.NewClient("passthrough:///"+lis.Addr().String(),
			grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
		if err != nil {
			b.Fatal(err)
		}
		running.Go(func() {
			defer conn.Close()
			acknowledge(b, conn, fmt.Sprintf("dp-%d", i), acknowledged)
		})
	}
	wait := func() {
		for range planes {
			<-acknowledged
		}
	}
	wait()
	for i := 0; b.Loop(); i++ {
		publish(b, f, tables[i%2], time.Now())
		wait()
	}
	service.Stop()
	g.Stop()
	running.Wait()
}

// acknowledge plays a data plane that says applied to everything, until the
// stream ends.
func acknowledge(b *testing.B, conn *grpc.ClientConn, id string, acknowledged chan<- struct{}) {
	stream, err := routetablev1.NewRouteTableServiceClient(conn).Subscribe(b.Context())
	if err != nil {
		b.Error(err)
		return
	}
	hello := &routetablev1.Hello{Id: id, SessionId: "1"}
	err = stream.Send(&routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Hello{Hello: hello}})
	for err == nil {
		var m *routetablev1.SubscribeResponse
		if m, err = stream.Recv(); err != nil {
			return
		}
		c := m.GetChunk()
		if c == nil || c.GetIndex()+1 < c.GetCount() {
			continue
		}
		err = stream.Send(&routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Applied{
			Applied: &routetablev1.Applied{Version: c.GetVersion(), Revision: c.GetRevision()},
		}})
		acknowledged <- struct{}{}
	}
}
