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
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// BenchmarkSwitch measures a change of all data planes at the same moment, and the
// spread of it. The data planes run in the same process and neither unpack nor store
// what they are sent, so it is what the control plane and the streams contribute.
func BenchmarkSwitch(b *testing.B) {
	for _, planes := range []int{10, 1000} {
		b.Run(fmt.Sprintf("dataplanes=%d", planes), func(b *testing.B) { switchAll(b, planes) })
	}
}

func switchAll(b *testing.B, planes int) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	f := fleet.New(fleet.Options{})
	tables := []*routetablev1.RouteTable{endpoints(1000, 0), endpoints(1000, 1)}
	base := publish(b, f, tables[1], time.Now())
	service := fleet.NewServer(f, fleet.ServerOptions{})
	g := grpc.NewServer(fleet.GRPCOptions()...)
	routetablev1.RegisterRouteTableServiceServer(g, service)
	var running sync.WaitGroup
	running.Go(func() { _ = g.Serve(lis) })
	for i := range planes {
		conn, err := grpc.NewClient("passthrough:///"+lis.Addr().String(),
			grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
		if err != nil {
			b.Fatal(err)
		}
		running.Go(func() {
			defer conn.Close()
			obey(b, conn, fmt.Sprintf("dp-%d", i), base)
		})
	}
	eventually(b, "all have joined", func() bool { return len(f.DataPlanes()) == planes })
	var sum time.Duration
	n := 0
	for i := 0; b.Loop(); i++ {
		next, err := fleet.NewTable(tables[i%2], routetable.Version(tables[i%2]), f.Desired().Revision+1, time.Now())
		if err != nil {
			b.Fatal(err)
		}
		if err := f.Prepare(b.Context(), next, planes, time.Minute); err != nil {
			b.Fatal(err)
		}
		f.Publish(next)
		f.Release()
		spread, _ := f.Switched(b.Context())
		sum += spread
		n++
	}
	b.ReportMetric(float64(sum.Microseconds())/1000/float64(n), "ms-spread/op")
	service.Stop()
	g.Stop()
	running.Wait()
}

// obey plays a data plane that is ready for everything and switches when it is told.
func obey(b *testing.B, conn *grpc.ClientConn, id string, runs *fleet.Table) {
	stream, err := routetablev1.NewRouteTableServiceClient(conn).Subscribe(b.Context())
	if err != nil {
		b.Error(err)
		return
	}
	err = stream.Send(&routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Hello{Hello: &routetablev1.Hello{
		Id: id, SessionId: "1", Features: []routetablev1.Feature{routetablev1.Feature_FEATURE_PREPARE},
		State: &routetablev1.State{Version: runs.Version, Revision: runs.Revision},
	}}})
	for err == nil {
		var m *routetablev1.SubscribeResponse
		if m, err = stream.Recv(); err != nil {
			return
		}
		switch m := m.GetMessage().(type) {
		case *routetablev1.SubscribeResponse_Chunk:
			if m.Chunk.GetIndex()+1 == m.Chunk.GetCount() {
				err = stream.Send(&routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Prepared{
					Prepared: &routetablev1.Prepared{Version: m.Chunk.GetVersion()},
				}})
			}
		case *routetablev1.SubscribeResponse_Commit:
			err = stream.Send(&routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Applied{
				Applied: &routetablev1.Applied{Version: m.Commit.GetVersion(), Revision: m.Commit.GetRevision()},
			}})
		}
	}
}
