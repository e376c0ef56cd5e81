package fleet

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// maxRequest bounds one message to the control plane, in bytes: a configuration
// of the largest size, as `apply` sends it, and its envelope.
const maxRequest = 64<<20 + 64<<10

// maxStreams bounds the calls at a time on one connection: a data plane has one, a
// command a few.
const maxStreams = 100

// Buffers in bytes, which are shared by the connections that are being read from or
// written to. Data planes say little, and what is larger is read past the buffer. With
// buffers of the library's 32 KiB, and for writing one for each connection, 10,000 data planes
// take 70 MB more.
const (
	readBuffer  = 4 << 10
	writeBuffer = 16 << 10
)

// GRPCOptions returns what a gRPC server needs to serve data planes: shared
// bytes, limits set on purpose, and keepalive that agrees with the data planes'
// (they ping every 10 s; the library's default would answer that with GOAWAY).
// Connections end some time after the turn of a stream on them would (see
// ServerOptions): none outlives a CA or a certificate for long.
func GRPCOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		newCodec(),
		grpc.MaxRecvMsgSize(maxRequest),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.ReadBufferSize(readBuffer),
		grpc.WriteBufferSize(writeBuffer),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time:                  30 * time.Second,
			Timeout:               10 * time.Second,
			MaxConnectionAge:      45 * time.Minute,
			MaxConnectionAgeGrace: 10 * time.Second,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime:             5 * time.Second,
			PermitWithoutStream: true,
		}),
	}
}
