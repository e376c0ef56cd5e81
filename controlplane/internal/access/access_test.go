package access

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	fleetv1 "reverseproxy/proto/fleet/v1"
	"reverseproxy/proto/identity"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

const (
	subscribe = routetablev1.RouteTableService_Subscribe_FullMethodName
	apply     = fleetv1.FleetService_Apply_FullMethodName
	fleet     = fleetv1.FleetService_Status_FullMethodName
)

// from returns the context of a call by somebody.
func from(t *testing.T, uris ...*url.URL) context.Context {
	t.Helper()
	leaf := &x509.Certificate{URIs: uris}
	return peer.NewContext(t.Context(), &peer.Peer{
		Addr:     &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1234},
		AuthInfo: credentials.TLSInfo{State: tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}},
	})
}

func TestRoles(t *testing.T) {
	edge := from(t, identity.Identity{Role: identity.DataPlane, Name: "edge-1"}.URI())
	alice := from(t, identity.Identity{Role: identity.Operator, Name: "alice"}.URI())
	plane := from(t, identity.Identity{Role: identity.ControlPlane, Name: "main"}.URI())
	for _, test := range []struct {
		name   string
		caller context.Context
		method string
		want   string // in the refusal; empty: admitted
	}{
		{"a data plane subscribes", edge, subscribe, ""},
		{"a data plane applies", edge, apply, "/fleet.v1.FleetService/Apply is for operators, and this is the certificate of data plane edge-1"},
		{"a data plane asks", edge, fleet, "is for operators"},
		{"an operator subscribes", alice, subscribe, "/routetable.v1.RouteTableService/Subscribe is for data planes, and this is the certificate of operator alice"},
		{"an operator applies", alice, apply, ""},
		{"an operator asks", alice, fleet, ""},
		{"a control plane subscribes", plane, subscribe, "is for data planes"},
		{"a control plane applies", plane, apply, "is for operators"},
		{"an operator, and what nobody may", alice, "/grpc.health.v1.Health/Check", "is for nobody"},
		{"a data plane, and another spelling", edge, strings.ToLower(subscribe), "is for nobody"},
		{"a data plane, and no method", edge, "", "is for nobody"},
		{"a certificate without identity", from(t), apply, "the client's certificate: no alternative name is a URI"},
		{"no TLS", peer.NewContext(t.Context(), &peer.Peer{Addr: &net.TCPAddr{}}), apply, "there is none"},
		{"no peer", t.Context(), apply, "there is none"},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := New(slog.New(slog.DiscardHandler))
			called := 0
			_, unary := g.unary(test.caller, nil, &grpc.UnaryServerInfo{FullMethod: test.method}, func(context.Context, any) (any, error) {
				called++
				return nil, nil
			})
			stream := g.stream(nil, callOf{ctx: test.caller}, &grpc.StreamServerInfo{FullMethod: test.method}, func(any, grpc.ServerStream) error {
				called++
				return nil
			})
			for _, err := range []error{unary, stream} {
				switch {
				case test.want == "" && err != nil:
					t.Errorf("refused: %v", err)
				case test.want != "" && (status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), test.want)):
					t.Errorf("got %v, want permission denied with %q", err, test.want)
				}
			}
			if want := map[bool]int{true: 2, false: 0}[test.want == ""]; called != want {
				t.Errorf("%d calls got through, want %d", called, want)
			}
		})
	}
}

// callOf is a stream with nothing but its context.
type callOf struct {
	grpc.ServerStream
	ctx context.Context
}

func (c callOf) Context() context.Context { return c.ctx }

// Every method that is served is for somebody.
func TestEveryMethodIsForSomebody(t *testing.T) {
	n := 0
	for _, service := range []grpc.ServiceDesc{routetablev1.RouteTableService_ServiceDesc, fleetv1.FleetService_ServiceDesc} {
		n += len(service.Methods) + len(service.Streams)
	}
	if len(methods) != n {
		t.Errorf("%d methods are for somebody, want %d", len(methods), n)
	}
}

func TestRefusalsAreLoggedOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		g := New(slog.New(slog.NewTextHandler(&log, nil)))
		lines := func() int { return strings.Count(log.String(), "\n") }
		alice := from(t, identity.Identity{Role: identity.Operator, Name: "alice"}.URI())
		for range 10 {
			_ = g.admit(alice, subscribe)
			g.refused(&net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 5}, errors.New("reason"))
			g.refused(&net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 6}, errors.New("reason"))
		}
		g.refused(&net.TCPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 5}, errors.New("reason"))
		for _, want := range []string{
			`msg="call refused" from=192.0.2.1:1234 error="/routetable.v1.RouteTableService/Subscribe is for data planes, and this is the certificate of operator alice"`,
			`msg="connection refused" from=192.0.2.1:5 error=reason`, `msg="connection refused" from=192.0.2.2:5 error=reason`,
		} {
			if strings.Count(log.String(), want) != 1 {
				t.Errorf("the log has not one %s:\n%s", want, &log)
			}
		}
		if lines() != 3 {
			t.Errorf("%d lines, want 3:\n%s", lines(), &log)
		}
		time.Sleep(saidFor)
		_ = g.admit(alice, subscribe)
		if lines() != 4 {
			t.Errorf("a minute later: %d lines, want 4", lines())
		}
		for i := range 1000 {
			g.refused(&net.TCPAddr{IP: net.IPv4(198, 51, byte(i>>8), byte(i))}, fmt.Errorf("reason %d", i))
		}
		if lines() != 3+maxSaid {
			t.Errorf("1000 strangers in a minute: %d lines, want %d", lines()-3, maxSaid)
		}
	})
}

// The handler refuses a data plane that says it is another, which is logged, too.
func TestARefusalByTheHandlerIsLogged(t *testing.T) {
	var log bytes.Buffer
	g := New(slog.New(slog.NewTextHandler(&log, nil)))
	edge := callOf{ctx: from(t, identity.Identity{Role: identity.DataPlane, Name: "edge-1"}.URI())}
	for _, err := range []error{status.Error(codes.Unavailable, "stopping"), status.Error(codes.PermissionDenied, "another id")} {
		if got := g.stream(nil, edge, &grpc.StreamServerInfo{FullMethod: subscribe}, func(any, grpc.ServerStream) error { return err }); got != err {
			t.Errorf("got %v, want %v", got, err)
		}
	}
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `error="another id"`) {
		t.Errorf("logged:\n%s", got)
	}
}
