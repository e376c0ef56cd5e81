package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"reverseproxy/controlplane/internal/serve"
	fleetv1 "reverseproxy/proto/fleet/v1"
)

const (
	// askTimeout bounds a question to a control plane, connecting included.
	askTimeout = 5 * time.Second
	// reconnectDelay is how long a waiting command lets a control plane that is
	// not there come up before it tries again.
	reconnectDelay = 200 * time.Millisecond
	// applyTimeout bounds the check and the writing of a configuration: a
	// hundred thousand endpoints take seconds.
	applyTimeout = time.Minute
	// maxAnswer bounds one answer: the status of a large fleet.
	maxAnswer = 256 << 20
)

// errUnreachable marks the errors that a control plane which is starting, or
// starting again, can cause.
var errUnreachable = errors.New("unreachable")

// unreachableError has the words for people and is errUnreachable.
type unreachableError string

func (e unreachableError) Error() string        { return string(e) }
func (e unreachableError) Is(target error) bool { return target == errUnreachable }

// remote is the control plane that a client sub-command speaks to.
type remote struct {
	server   string
	insecure bool
	conn     *grpc.ClientConn
	fleet    fleetv1.FleetServiceClient
}

// flags defines how to reach it.
func (r *remote) flags(f *pflag.FlagSet) {
	f.StringVar(&r.server, "server", "127.0.0.1:18000", "`address` of the control plane's gRPC")
	f.BoolVar(&r.insecure, "insecure", false, "speak to a control plane on another machine without encryption")
}

// dial prepares the connection; the first call makes it.
func (r *remote) dial() error {
	if err := serve.CheckListen("--server", r.server, r.insecure); err != nil {
		return usagef("%v", err)
	}
	retry := backoff.DefaultConfig
	retry.BaseDelay, retry.MaxDelay = reconnectDelay, reconnectDelay
	conn, err := grpc.NewClient("passthrough:///"+r.server,
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: retry, MinConnectTimeout: askTimeout}),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))
	if err != nil {
		return usagef("--server %s: %v", r.server, err)
	}
	r.conn, r.fleet = conn, fleetv1.NewFleetServiceClient(conn)
	return nil
}

// close ends the connection; what it could report no longer matters.
func (r *remote) close() { _ = r.conn.Close() }

// status asks for the fleet.
func (r *remote) status(ctx context.Context, request *fleetv1.StatusRequest) (*fleetv1.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	s, err := r.fleet.Status(ctx, request)
	return s, r.explainError(err)
}

// backends asks for the backends of endpoints.
func (r *remote) backends(ctx context.Context, request *fleetv1.BackendsRequest) (*fleetv1.BackendsResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	b, err := r.fleet.Backends(ctx, request)
	return b, r.explainError(err)
}

// explainError turns the error of a call into one line with the remedy.
func (r *remote) explainError(err error) error {
	if err == nil {
		return nil
	}
	s := status.Convert(err)
	switch s.Code() {
	case codes.Unavailable:
		return unreachableError(fmt.Sprintf("no control plane can be reached at %s (%s); is it running? --server names another one", r.server, cause(s.Message())))
	case codes.DeadlineExceeded:
		return unreachableError(fmt.Sprintf("the control plane at %s does not answer; is it overloaded or stopped, or is something else listening there?", r.server))
	case codes.NotFound:
		return errors.New(s.Message())
	case codes.Canceled:
		return fmt.Errorf("interrupted")
	case codes.Unimplemented:
		return fmt.Errorf("what listens at %s is not a control plane, or an older one (%s)", r.server, s.Message())
	default:
		return fmt.Errorf("control plane at %s: %s", r.server, s.Message())
	}
}

// cause returns the innermost part of an error text, which is what the operating
// system has said.
func cause(text string) string {
	if i := strings.LastIndex(text, ": "); i >= 0 {
		text = text[i+len(": "):]
	}
	return strings.TrimSuffix(text, `"`)
}
