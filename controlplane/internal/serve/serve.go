// Package serve runs a control plane: it puts source, loader, fleet, gRPC and
// admin server together and takes them down again.
package serve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"google.golang.org/grpc"

	"reverseproxy/controlplane/internal/access"
	"reverseproxy/controlplane/internal/admin"
	"reverseproxy/controlplane/internal/fleet"
	"reverseproxy/controlplane/internal/history"
	"reverseproxy/controlplane/internal/reconcile"
	"reverseproxy/controlplane/internal/source"
	"reverseproxy/controlplane/internal/status"
	fleetv1 "reverseproxy/proto/fleet/v1"
	"reverseproxy/proto/identity"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// Options of a control plane, as on the command line.
type Options struct {
	// Config is the path of the configuration file.
	Config string
	// Listen is host:port of gRPC, Admin of HTTP; port 0 is any free one.
	Listen, Admin string
	// TLS are the files for mutual TLS; none: gRPC is plaintext.
	TLS identity.Paths
	// Insecure lets plaintext gRPC be served beyond this machine.
	Insecure bool
	// StateDir keeps the history and the drained backends over restarts; empty: they
	// are not kept.
	StateDir string
	// ApplyDeadline and ForgetAfter are described in fleet.Options; zero is the
	// default.
	ApplyDeadline, ForgetAfter time.Duration
	// Interval between two looks at the file; zero is the default.
	Interval time.Duration
	// Reload makes the file be read at once.
	Reload <-chan struct{}
	// Build is the program's version.
	Build string
	// Log is required.
	Log *slog.Logger
	// Listening, when not nil, is called once with the bound addresses, when
	// data planes are being served.
	Listening func(grpc, admin string)
}

const (
	sweepInterval = 5 * time.Second
	stopTimeout   = 3 * time.Second
)

// InvalidConfigError says that there is no valid configuration to start with.
type InvalidConfigError struct{ Err error }

// Error returns all problems, one per line.
func (e *InvalidConfigError) Error() string { return e.Err.Error() }

// Unwrap returns the problems.
func (e *InvalidConfigError) Unwrap() error { return e.Err }

// CheckAddress returns an error when what a flag says is not host:port.
func CheckAddress(flag, address string) error {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%s %q is not host:port", flag, address)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%s %q has a port that is not a number from 0 to 65535", flag, address)
	}
	return nil
}

// CheckListen returns an error when an address is not host:port, when the files for TLS
// are not all given or none, or when gRPC without encryption would be reachable from
// other machines and insecure does not allow it.
func CheckListen(flag, address string, tls identity.Paths, insecure bool) error {
	if err := errors.Join(CheckAddress(flag, address), tls.Check()); err != nil {
		return err
	}
	if tls.Given() && insecure {
		return errors.New("--insecure is for gRPC without encryption, and goes without --tls-ca, --tls-cert and --tls-key")
	}
	host, _, _ := net.SplitHostPort(address)
	if ip := net.ParseIP(host); tls.Given() || insecure || host == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	return fmt.Errorf("%s %s is not a loopback address and gRPC is not encrypted; "+
		"use 127.0.0.1, or give --tls-ca, --tls-cert and --tls-key (controlplane certs makes them), "+
		"or --insecure to accept that anyone on the network can read and change the configuration", flag, address)
}

// Run serves until the context ends, which is a clean stop. Data planes are
// served only once there is a valid configuration.
func Run(ctx context.Context, o Options) error {
	f, loader, err := load(o)
	if err != nil {
		return err
	}
	options, certificates, err := secured(o)
	if err != nil {
		return err
	}
	bound, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return fmt.Errorf("listen for data planes on %s: %w", o.Listen, err)
	}
	grpcListener := newListener(bound)
	adminListener, err := net.Listen("tcp", o.Admin)
	if err != nil {
		return errors.Join(fmt.Errorf("listen for admin requests on %s: %w", o.Admin, err), grpcListener.Close())
	}

	streams := fleet.NewServer(f, fleet.ServerOptions{})
	grpcServer := grpc.NewServer(append(fleet.GRPCOptions(), options...)...)
	routetablev1.RegisterRouteTableServiceServer(grpcServer, streams)
	service := reconcile.NewService(loader, f, o.Log)
	fleetv1.RegisterFleetServiceServer(grpcServer, service)
	var ready atomic.Bool
	metrics := registry(f, loader, o.Build)
	adminServer := admin.NewServer(metrics, shown{f, loader, service}, ready.Load, o.Log)

	// The first server to fail ends the others.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	running.Go(func() { cancel(grpcServer.Serve(grpcListener)) })
	running.Go(func() { cancel(adminServer.Serve(adminListener)) })
	running.Go(func() { loader.Run(ctx, o.Reload) })
	running.Go(func() { sweep(ctx, f) })
	running.Go(func() { tuneMemory(ctx) })
	if certificates != nil {
		metrics.MustRegister(expiry(certificates))
		running.Go(func() { certificates.Run(ctx) })
	}

	ready.Store(true)
	grpcAddress, adminAddress := grpcListener.Addr().String(), adminListener.Addr().String()
	o.Log.Info("listening", "grpc", grpcAddress, "admin", adminAddress, "config", o.Config, "build", o.Build)
	if o.Listening != nil {
		o.Listening(grpcAddress, adminAddress)
	}

	<-ctx.Done()
	cause := context.Cause(ctx)
	ready.Store(false)
	o.Log.Info("stopping")
	streams.Stop()
	stop(grpcServer, grpcListener, adminServer)
	running.Wait()
	if errors.Is(cause, context.Canceled) {
		return nil
	}
	return cause
}

// load makes the fleet and publishes the first configuration.
func load(o Options) (*fleet.Fleet, *reconcile.Loader, error) {
	settings := fleet.Options{ApplyDeadline: o.ApplyDeadline, ForgetAfter: o.ForgetAfter, Log: o.Log}
	following := reconcile.Options{Interval: o.Interval, Grace: cmp.Or(o.ApplyDeadline, fleet.DefaultApplyDeadline), Log: o.Log}
	historyDir := ""
	if o.StateDir != "" {
		if err := os.MkdirAll(o.StateDir, 0o755); err != nil {
			return nil, nil, fmt.Errorf("state directory: %w", err)
		}
		if err := source.RemoveAllLeftovers(o.StateDir); err != nil {
			return nil, nil, fmt.Errorf("state directory: %w", err)
		}
		following.RevisionFile = filepath.Join(o.StateDir, reconcile.RevisionFileName)
		following.DrainsFile = filepath.Join(o.StateDir, reconcile.DrainsFileName)
		var err error
		if following.Drained, err = reconcile.ReadDrains(following.DrainsFile); err != nil {
			return nil, nil, fmt.Errorf("drained backends: %w", err)
		}
		following.RolloutFile = filepath.Join(o.StateDir, reconcile.RolloutFileName)
		if following.Rollout, err = reconcile.ReadRollout(following.RolloutFile, following.Grace, time.Now()); err != nil {
			return nil, nil, fmt.Errorf("roll-out: %w", err)
		}
		historyDir = filepath.Join(o.StateDir, history.DirName)
	}
	var err error
	if following.History, err = history.Open(historyDir, o.Log); err != nil {
		return nil, nil, err
	}
	f := fleet.New(settings)
	loader := reconcile.New(source.New(o.Config), f, following)
	err = loader.Start()
	var lost *reconcile.LostBaseError
	switch {
	case errors.As(err, &lost):
		return nil, nil, err
	case err != nil:
		return nil, nil, &InvalidConfigError{err}
	}
	return f, loader, nil
}

// secured returns what mutual TLS adds to the gRPC server, and its certificates;
// nothing when it is not wanted.
func secured(o Options) ([]grpc.ServerOption, *identity.Certificates, error) {
	if !o.TLS.Given() {
		return nil, nil, nil
	}
	c, err := identity.Load(o.TLS, identity.ControlPlane, o.Log)
	if err != nil {
		return nil, nil, fmt.Errorf("certificates: %w", err)
	}
	return access.New(o.Log).Options(c), c, nil
}

// expiry is the metric about the certificate.
func expiry(c *identity.Certificates) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "controlplane_tls_certificate_expiry_timestamp_seconds",
		Help: "When the certificate ends that the control plane presents, in Unix time.",
	}, func() float64 { return float64(c.Expiry().Unix()) })
}

// shown is what the admin server shows.
type shown struct {
	fleet   *fleet.Fleet
	loader  *reconcile.Loader
	service *reconcile.Service
}

// Status implements admin.Fleet.
func (s shown) Status() status.Status { return status.From(s.loader.Status()) }

// Endpoints implements admin.Fleet.
func (s shown) Endpoints(name string) ([]status.Endpoint, error) {
	b := s.fleet.Backends(name, 0)
	if b == nil {
		return nil, errors.New(reconcile.NoEndpoint(name, s.fleet.Desired().Proto))
	}
	return status.EndpointsFrom(b), nil
}

// Look implements admin.Fleet.
func (s shown) Look() *status.Look {
	t := s.fleet.Traffic()
	return status.NewLook(s.fleet.Desired().Proto, t.Rates(), t.Series())
}

// Rollout implements admin.Fleet.
func (s shown) Rollout() *status.Rollout { return status.RolloutFrom(s.loader.Rollout()) }

// History implements admin.Fleet.
func (s shown) History(ctx context.Context) (status.History, error) {
	h, err := s.service.History(ctx, &fleetv1.HistoryRequest{})
	return status.HistoryFrom(h), err
}

// Diff implements admin.Fleet.
func (s shown) Diff(ctx context.Context, from, to uint64) (status.Diff, error) {
	d, err := s.service.Diff(ctx, &fleetv1.DiffRequest{From: from, To: to})
	if err != nil {
		return status.Diff{}, err
	}
	return status.DiffFrom(from, d), nil
}

// registry collects all metrics.
func registry(f *fleet.Fleet, l *reconcile.Loader, build string) *prometheus.Registry {
	r := prometheus.NewRegistry()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "controlplane_build_info",
		Help:        "The program's version, in labels; the value is 1.",
		ConstLabels: prometheus.Labels{"version": build, "goversion": runtime.Version()},
	})
	info.Set(1)
	r.MustRegister(f, l, info, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// sweep lets the fleet forget, until the context ends.
func sweep(ctx context.Context, f *fleet.Fleet) {
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			f.Sweep()
		case <-ctx.Done():
			return
		}
	}
}

// stop ends both servers: requests that have begun get a moment to finish.
func stop(g *grpc.Server, l *listener, a *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	var stopping sync.WaitGroup
	stopping.Go(func() {
		if a.Shutdown(ctx) != nil {
			_ = a.Close() // nothing can be done about a listener that does not close
		}
	})
	stopping.Go(func() {
		release := context.AfterFunc(ctx, func() {
			l.closeAll()
			g.Stop()
		})
		defer release()
		g.GracefulStop()
	})
	stopping.Wait()
}
