package fleet

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/tap"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

// maxRequest bounds one message to the control plane, in bytes: a configuration
// of the largest size, as `apply` sends it, and its envelope.
const maxRequest = 64<<20 + 64<<10

// maxStreams bounds the calls at a time on one connection: a data plane has one, a
// command a few.
const maxStreams = 100

// Buffers in bytes, which are shared by the connections that are being read from or
// written to. Data planes say little, and what is larger is read past the buffer. When
// 10,000 are written to at once, half of the writers hold a buffer, however little they
// write: with 16 KiB they take 40 MB more. Sending 1.5 GB of large tables takes 3.4 s of CPU
// with either.
const (
	readBuffer  = 4 << 10
	writeBuffer = 8 << 10
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
		grpc.InTapHandle(cancelable),
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

// cancelKey is of the context of a stream, and has what ends it.
type cancelKey struct{}

// cancelable lets the context of a stream be canceled before its handler returns, which
// gRPC has no call for: so the handler itself can wait for messages, and a sender for a
// receiver that does not read, and both can be told to stop.
//
// The tap package of gRPC is experimental: it is used in this file only.
func cancelable(ctx context.Context, info *tap.Info) (context.Context, error) {
	if info.FullMethodName != routetablev1.RouteTableService_Subscribe_FullMethodName {
		return ctx, nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	return context.WithValue(ctx, cancelKey{}, cancel), nil
}

// endOf returns what cancels the context of a stream with a reason.
func endOf(ctx context.Context) context.CancelCauseFunc {
	return ctx.Value(cancelKey{}).(context.CancelCauseFunc)
}
