package fleet_test

import (
	"fmt"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"reverseproxy/controlplane/internal/fleet"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// BenchmarkHeartbeat is a heartbeat that says nothing new and its answer, on a thousand
// streams: what a data plane asks of several control planes
// every second. The CPU time is that of both sides.
func BenchmarkHeartbeat(b *testing.B) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	f := fleet.New(fleet.Options{})
	version := publish(b, f, endpoints(10, 0), time.Now()).Version
	service := fleet.NewServer(f, fleet.ServerOptions{})
	g := grpc.NewServer(fleet.GRPCOptions()...)
	routetablev1.RegisterRouteTableServiceServer(g, service)
	var running sync.WaitGroup
	running.Go(func() { _ = g.Serve(lis) })
	beats := make(chan struct{})
	answered := make(chan struct{})
	const streams = 1000
	for i := range streams {
		conn, err := grpc.NewClient("passthrough:///"+lis.Addr().String(),
			grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
		if err != nil {
			b.Fatal(err)
		}
		running.Go(func() {
			defer conn.Close()
			beat(b, conn, fmt.Sprintf("dp-%d", i), version, beats, answered)
		})
	}
	for range streams {
		<-answered // its hello has been
	}
	before := cpuTime(b)
	b.ResetTimer()
	running.Go(func() {
		for range b.N {
			beats <- struct{}{}
		}
	})
	for range b.N {
		<-answered
	}
	b.StopTimer()
	b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
	close(beats)
	service.Stop()
	g.Stop()
	running.Wait()
}

// beat plays a data plane that sends a heartbeat for each element of beats and waits
// for its answer.
func beat(b *testing.B, conn *grpc.ClientConn, id, version string, beats <-chan struct{}, answered chan<- struct{}) {
	stream, err := routetablev1.NewRouteTableServiceClient(conn).Subscribe(b.Context())
	if err != nil {
		b.Error(err)
		return
	}
	state := &routetablev1.State{Version: version, Revision: 1, Source: routetablev1.Source_SOURCE_STREAM}
	hello := &routetablev1.Hello{Id: id, SessionId: "1", State: state}
	if err := stream.Send(&routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Hello{Hello: hello}}); err != nil {
		b.Error(err)
		return
	}
	if _, err := stream.Recv(); err != nil {
		b.Error(err)
	}
	answered <- struct{}{}
	for range beats {
		if err := stream.Send(&routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Heartbeat{
			Heartbeat: &routetablev1.Heartbeat{State: state, RequestsTotal: 1 << 30},
		}}); err != nil {
			b.Error(err)
			return
		}
		for alive := false; !alive; {
			m, err := stream.Recv()
			if err != nil {
				b.Error(err)
				return
			}
			alive = m.GetAlive() != nil
		}
		answered <- struct{}{}
	}
}

// cpuTime returns what this process has used so far.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
