package identity_test

import (
	"context"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"reverseproxy/proto/identity"
	"reverseproxy/proto/identity/identitytest"
)

// BenchmarkHandshake is what a fleet that connects again costs: one mutual-TLS
// handshake over a socket. server-µs is the CPU time of the control plane's side.
func BenchmarkHandshake(b *testing.B) {
	ca := identitytest.NewCA(b, "the CA")
	server := load(b, ca.Files(b, plane, nil)).Server(func(_ net.Addr, err error) { b.Error(err) })
	client := identity.NewClient(load(b, ca.Files(b, edge, nil)))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	var serving sync.WaitGroup
	var spent time.Duration
	serving.Go(func() {
		runtime.LockOSThread() // so that the thread's CPU time is that of the handshakes
		defer runtime.UnlockOSThread()
		before := threadTime(b)
		for {
			raw, err := l.Accept()
			if err != nil {
				break
			}
			conn, _, err := server.ServerHandshake(raw)
			if err != nil {
				break
			}
			conn.Write([]byte{0}) // the client waits for it
			conn.Close()
		}
		spent = threadTime(b) - before
	})
	for b.Loop() {
		raw, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		conn, _, err := client.ClientHandshake(b.Context(), "control-plane", raw)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadAll(conn); err != nil {
			b.Fatal(err)
		}
		conn.Close()
	}
	l.Close()
	serving.Wait()
	b.ReportMetric(float64(spent.Microseconds())/float64(b.N), "server-µs/op")
}

// threadTime is the CPU time of this thread.
func threadTime(b *testing.B) time.Duration {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &r); err != nil {
		b.Error(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// BenchmarkStream is the memory of an idle stream, both ends of it, without and with
// mutual TLS.
func BenchmarkStream(b *testing.B) {
	const streams = 1000
	ca := identitytest.NewCA(b, "the CA")
	for name, certificates := range map[string]func(identity.Identity) *identity.Certificates{
		"plaintext": func(identity.Identity) *identity.Certificates { return nil },
		"TLS":       func(who identity.Identity) *identity.Certificates { return load(b, ca.Files(b, who, nil)) },
	} {
		b.Run(name, func(b *testing.B) {
			l, creds := listen(b, certificates(plane)), identity.NewClient(certificates(edge))
			for b.Loop() {
				before := memory()
				ctx, cancel := context.WithCancel(b.Context())
				conns := make([]*grpc.ClientConn, streams)
				for i := range conns {
					conn, err := grpc.NewClient("passthrough:///"+l.address, grpc.WithTransportCredentials(creds), grpc.WithNoProxy())
					if err != nil {
						b.Fatal(err)
					}
					conns[i] = conn
					s, err := healthv1.NewHealthClient(conn).Watch(ctx, &healthv1.HealthCheckRequest{})
					if err != nil {
						b.Fatal(err)
					}
					if _, err := s.Recv(); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(memory()-before)/streams, "bytes/stream")
				cancel()
				for _, conn := range conns {
					conn.Close()
				}
			}
		})
	}
}

// memory is what is in use after a collection.
func memory() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
