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
	"reverseproxy/controlplane/internal/traffic"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// BenchmarkHeartbeat is a heartbeat and its answer, on a thousand streams: one that says
// nothing new, which is what a data plane asks of several control planes every second,
// and one of a data plane that has requests at 100 endpoints, which comes every five
// seconds. The CPU time is that of both sides.
func BenchmarkHeartbeat(b *testing.B) {
	for _, tt := range []struct {
		name string
		beat *routetablev1.Heartbeat
	}{{"nothing new", &routetablev1.Heartbeat{RequestsTotal: 1 << 30}}, {"busy", busy(100)}} {
		b.Run(tt.name, func(b *testing.B) { benchmarkHeartbeat(b, tt.beat) })
	}
}

// busy returns the heartbeat of a data plane that has requests at so many endpoints, each
// with three backends, and as many samples as there may be.
func busy(n int) *routetablev1.Heartbeat {
	h := &routetablev1.Heartbeat{Traffic: &routetablev1.Traffic{Requests: 1 << 20, Durations: make([]uint64, traffic.Buckets)}}
	for _, e := range endpoints(n, 0).GetEndpoints() {
		h.Endpoints = append(h.Endpoints, &routetablev1.EndpointReport{
			Endpoint: e.GetName(), Requests: 1 << 10, RequestsPerSecond: 40.2, FailuresPerSecond: 0.4,
		})
		for _, p := range e.GetPool() {
			h.Backends = append(h.Backends, &routetablev1.BackendReport{Endpoint: e.GetName(), Url: p.GetUrl(), Requests: 1 << 10, RequestsPerSecond: 13.4})
		}
		h.Samples = append(h.Samples, &routetablev1.Sample{
			Method: "GET", Host: "shop.example.com", Path: e.GetExact() + "/some/thing", Endpoint: e.GetName(), Weight: 200,
		})
	}
	return h
}

func benchmarkHeartbeat(b *testing.B, h *routetablev1.Heartbeat) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	f := fleet.New(fleet.Options{})
	version := publish(b, f, endpoints(100, 0), time.Now()).Version
	service := fleet.NewServer(f, fleet.ServerOptions{})
	g := grpc.NewServer(fleet.GRPCOptions()...)
	routetablev1.RegisterRouteTableServiceServer(g, service)
	var running sync.WaitGroup
	running.Go(func() { _ = g.Serve(lis) })
	h.State = &routetablev1.State{Version: version, Revision: 1, Source: routetablev1.Source_SOURCE_STREAM}
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
			beat(b, conn, fmt.Sprintf("dp-%d", i), h, beats, answered)
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
func beat(b *testing.B, conn *grpc.ClientConn, id string, h *routetablev1.Heartbeat, beats <-chan struct{}, answered chan<- struct{}) {
	stream, err := routetablev1.NewRouteTableServiceClient(conn).Subscribe(b.Context())
	if err != nil {
		b.Error(err)
		return
	}
	hello := &routetablev1.Hello{Id: id, SessionId: "1", State: h.GetState()}
	if err := stream.Send(&routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Hello{Hello: hello}}); err != nil {
		b.Error(err)
		return
	}
	if _, err := stream.Recv(); err != nil {
		b.Error(err)
	}
	answered <- struct{}{}
	for range beats {
		if err := stream.Send(&routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Heartbeat{Heartbeat: h}}); err != nil {
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
