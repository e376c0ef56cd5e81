// Package access decides who may call what on a control plane with TLS, by the role
// in the caller's certificate: data planes subscribe, operators use the command line,
// and everything else is refused. It logs who was refused, and why.
package access

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	fleetv1 "reverseproxy/proto/fleet/v1"
	"reverseproxy/proto/identity"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// methods says which role each method is for, by its full path. What is not in it is
// for nobody.
var methods = func() map[string]identity.Role {
	m := map[string]identity.Role{}
	for role, service := range map[identity.Role]grpc.ServiceDesc{
		identity.DataPlane: routetablev1.RouteTableService_ServiceDesc,
		identity.Operator:  fleetv1.FleetService_ServiceDesc,
	} {
		for _, method := range service.Methods {
			m["/"+service.ServiceName+"/"+method.MethodName] = role
		}
		for _, stream := range service.Streams {
			m["/"+service.ServiceName+"/"+stream.StreamName] = role
		}
	}
	return m
}()

// Gate lets callers in or not. Its methods may be called from several goroutines.
type Gate struct {
	log  *slog.Logger
	said said
}

// New returns a gate that logs refusals.
func New(log *slog.Logger) *Gate { return &Gate{log: log} }

// Options returns what a gRPC server needs to serve with the certificates, each
// caller what it may.
func (g *Gate) Options(c *identity.Certificates) []grpc.ServerOption {
	return []grpc.ServerOption{grpc.Creds(c.Server(g.refused)), grpc.ChainUnaryInterceptor(g.unary), grpc.ChainStreamInterceptor(g.stream)}
}

func (g *Gate) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := g.admit(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return next(ctx, request)
}

func (g *Gate) stream(server any, s grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := g.admit(s.Context(), info.FullMethod); err != nil {
		return err
	}
	err := next(server, s)
	// A handler refuses a data plane that says it is another.
	if status.Code(err) == codes.PermissionDenied {
		g.denied(s.Context(), err)
	}
	return err
}

// admit returns the error for who may not call a method.
func (g *Gate) admit(ctx context.Context, method string) error {
	err := permit(ctx, method)
	if err != nil {
		g.denied(ctx, err)
	}
	return err
}

// permit decides.
func permit(ctx context.Context, method string) error {
	who, err := identity.Caller(ctx)
	if err != nil {
		return status.Errorf(codes.PermissionDenied, "the client's certificate: %v", err)
	}
	role, known := methods[method]
	switch {
	case !known:
		return status.Errorf(codes.PermissionDenied, "%s is for nobody", method)
	case role != who.Role:
		return status.Errorf(codes.PermissionDenied, "%s is for %ss, and this is the certificate of %s", method, role, who)
	}
	return nil
}

// denied logs that a caller was refused.
func (g *Gate) denied(ctx context.Context, err error) {
	reason := status.Convert(err).Message()
	if p, ok := peer.FromContext(ctx); ok && g.worthSaying(p.Addr, reason) {
		g.log.Warn("call refused", "from", p.Addr.String(), "error", reason)
	}
}

// refused logs that a connection was.
func (g *Gate) refused(from net.Addr, err error) {
	if g.worthSaying(from, err.Error()) {
		g.log.Warn("connection refused", "from", from.String(), "error", err)
	}
}

// worthSaying reports whether the same has not been logged about the same host lately:
// who is refused tries again.
func (g *Gate) worthSaying(from net.Addr, reason string) bool {
	host, _, err := net.SplitHostPort(from.String())
	if err != nil {
		host = from.String()
	}
	return g.said.first(host+" "+reason, time.Now())
}

const (
	saidFor = time.Minute
	// maxSaid bounds the log while strangers knock from many addresses.
	maxSaid = 100
)

// said are the refusals that have been logged within a minute.
type said struct {
	mu    sync.Mutex
	since time.Time
	texts map[string]bool
}

// first reports whether a text is worth a line now.
func (s *said) first(text string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.since) >= saidFor {
		s.since, s.texts = now, map[string]bool{}
	}
	if s.texts[text] || len(s.texts) >= maxSaid {
		return false
	}
	s.texts[text] = true
	return true
}
