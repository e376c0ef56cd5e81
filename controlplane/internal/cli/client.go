package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"reverseproxy/controlplane/internal/serve"
	fleetv1 "reverseproxy/proto/fleet/v1"
	"reverseproxy/proto/identity"
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
	tls      identity.Paths
	usual    identity.Paths // those of the environment
	insecure bool
	creds    *identity.Client
	conn     *grpc.ClientConn
	fleet    fleetv1.FleetServiceClient
	// release ends what follows the files for TLS.
	release func()
}

// flags defines how to reach it. What is the same for each command can come from the
// environment.
func (r *remote) flags(env *Env, f *pflag.FlagSet) {
	f.StringVar(&r.server, "server", cmp.Or(env.getenv("CONTROLPLANE_SERVER"), "127.0.0.1:18000"),
		"`address` of the control plane's gRPC; also in $CONTROLPLANE_SERVER")
	r.tls = identity.Paths{CA: env.getenv("CONTROLPLANE_TLS_CA"), Cert: env.getenv("CONTROLPLANE_TLS_CERT"), Key: env.getenv("CONTROLPLANE_TLS_KEY")}
	r.usual = r.tls
	tlsFlags(f, &r.tls, "; also in $CONTROLPLANE_TLS_CA, _CERT and _KEY")
	f.BoolVar(&r.insecure, "insecure", false, "speak to a control plane on another machine without encryption")
}

// tlsFlags defines the flags for mutual TLS; what is in p is their default.
func tlsFlags(f *pflag.FlagSet, p *identity.Paths, more string) {
	f.StringVar(&p.CA, "tls-ca", p.CA, "PEM `file` with the CAs that are trusted; the three go together, and controlplane certs makes them"+more)
	f.StringVar(&p.Cert, "tls-cert", p.Cert, "PEM `file` with the own certificate")
	f.StringVar(&p.Key, "tls-key", p.Key, "PEM `file` with its private key")
}

// dial prepares the connection; the first call makes it.
func (r *remote) dial() error {
	if r.insecure && r.tls == r.usual {
		r.tls = identity.Paths{} // the command line has the last word
	}
	if err := serve.CheckListen("--server", r.server, r.tls, r.insecure); err != nil {
		return usagef("%v", err)
	}
	if err := r.secure(); err != nil {
		return err
	}
	retry := backoff.DefaultConfig
	retry.BaseDelay, retry.MaxDelay = reconnectDelay, reconnectDelay
	conn, err := grpc.NewClient("passthrough:///"+r.server,
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: retry, MinConnectTimeout: askTimeout}),
		grpc.WithTransportCredentials(r.creds),
		grpc.WithNoProxy(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))
	if err != nil {
		r.release()
		return usagef("--server %s: %v", r.server, err)
	}
	r.conn, r.fleet = conn, fleetv1.NewFleetServiceClient(conn)
	return nil
}

// secure prepares TLS, if that is wanted. Commands like status --watch may outlive
// their certificates, so the files are followed.
func (r *remote) secure() error {
	r.release = func() {}
	if !r.tls.Given() {
		r.creds = identity.NewClient(nil)
		return nil
	}
	c, err := identity.Load(r.tls, "", slog.New(slog.DiscardHandler))
	if err != nil {
		return fmt.Errorf("certificates: %w", err)
	}
	r.creds = identity.NewClient(c)
	ctx, cancel := context.WithCancel(context.Background())
	var following sync.WaitGroup
	following.Go(func() { c.Run(ctx) })
	r.release = func() {
		cancel()
		following.Wait()
	}
	return nil
}

// close ends the connection; what it could report no longer matters.
func (r *remote) close() {
	_ = r.conn.Close()
	r.release()
}

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
		switch trouble := r.creds.Trouble(); {
		case trouble != nil && r.tls.Given(): // waiting does not help
			return fmt.Errorf("control plane at %s: %w", r.server, trouble)
		case trouble != nil:
			return unreachableError(fmt.Sprintf("control plane at %s: %v", r.server, trouble))
		}
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
