package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"reverseproxy/dataplane/internal/accesslog"
	"reverseproxy/dataplane/internal/accesslog/logfile"
	"reverseproxy/dataplane/internal/activate"
	"reverseproxy/dataplane/internal/admin"
	"reverseproxy/dataplane/internal/backend"
	"reverseproxy/dataplane/internal/health"
	"reverseproxy/dataplane/internal/loop"
	"reverseproxy/dataplane/internal/loop/socket"
	"reverseproxy/dataplane/internal/metrics"
	"reverseproxy/dataplane/internal/resolve"
	"reverseproxy/dataplane/internal/sample"
	"reverseproxy/dataplane/internal/subscribe"
	"reverseproxy/dataplane/internal/table"
	"reverseproxy/proto/identity"
)

// serve runs the data plane until ctx ends, and then drains it.
func serve(ctx context.Context, s *settings, log *slog.Logger) error {
	// GOMAXPROCS starts as the environment variable of that name says, or as CPU
	// affinity and the CPU limit of the cgroup allow (see package runtime).
	threads := s.threads
	if threads == 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	runtime.GOMAXPROCS(loop.Processors(s.driver, threads))
	rest()

	lines := accesslog.New(threads)
	writer := logfile.New(lines, log)
	closeLog := sync.OnceFunc(func() { endLog(writer, log) })
	defer closeLog()
	defer onSignal(syscall.SIGHUP, writer.Reopen)()

	adminServer, err := admin.Listen(s.admin)
	if err != nil {
		return err
	}
	defer closeAdmin(adminServer)
	adminPort := uint16(adminServer.Addr().Port)
	certificates, err := s.certificates(log)
	if err != nil {
		return err
	}
	id, err := s.idOf(adminPort, certificates)
	if err != nil {
		return err
	}
	stateDir, err := s.stateDirOf(id)
	if err != nil {
		return err
	}

	var resolver *net.Resolver
	if s.dnsServer != "" {
		resolver = resolve.Server(s.dnsServer)
	}
	watcher := health.New(health.Options{Resolver: resolver, Log: log})
	defer watcher.Close()
	live := new(table.Live)
	set := metrics.NewSet(threads)
	state := &table.State{Backends: backend.NewRegistry(), Metrics: set, Watcher: watcher, OnPanic: logPanic(log)}
	var samples *sample.Set
	if !s.noSample {
		samples = sample.New(threads)
	}
	registry := prometheus.NewRegistry()
	proxy, err := loop.NewServer(loop.Options{
		Driver: s.driver, Threads: threads, Live: live, Metrics: set, Log: log,
		MetricsPage: admin.NewPage(registry).Get, AccessLog: lines, Samples: samples, Resolver: resolver,
	})
	if err != nil {
		return err
	}
	defer proxy.Close()
	activator := activate.New(activate.Options{
		Address: s.address, Port: s.port, AdminPort: adminPort,
		Open: func(address string, port uint16) (activate.Listener, error) {
			return proxy.Open(address, port)
		},
		Reserve:   socket.Reserve,
		AccessLog: writer, Live: live, State: state, Log: log,
	})
	subscriber := subscribe.New(subscribe.Options{
		ControlPlanes: s.controlPlanes, Certificates: certificates, ID: id, Labels: s.labels, Build: build(),
		AdminAddress: adminServer.Addr().String(), Activator: activator, Store: subscribe.NewStore(stateDir),
		Quietly: func(size uint64, work func()) { quietly(size, activator.InForce() != nil, work) },
		Fleet:   &state.Fleet, Place: &state.Place, Metrics: set, Samples: samples, Log: log,
	})
	registry.MustRegister(set, watcher, writer, activator, subscriber, buildInfo(), threadsGauge(threads), collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	// An admin server that breaks stops the process cleanly: nobody could see
	// any more whether it works.
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var g sync.WaitGroup
	var adminErr error
	g.Go(func() {
		defer stop()
		adminErr = adminServer.Serve(admin.Options{Activator: activator, Health: watcher, Metrics: registry, Log: log})
	})
	g.Go(func() { state.Backends.Run(ctx) })
	if certificates != nil {
		registry.MustRegister(expiry(certificates))
		g.Go(func() { certificates.Run(ctx) })
	}
	log.Info("listening", "admin", adminServer.Addr().String(), "id", id, "build", build(), "threads", threads)

	// Unready at once, before anything that takes time.
	context.AfterFunc(ctx, activator.Drain)
	subscriber.Restore()
	subscriber.Run(ctx)

	log.Info("draining", "cause", context.Cause(ctx), "timeout", s.drainTimeout.String())
	began := time.Now()
	deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.drainTimeout)
	defer cancel()
	// What the deadline cuts is worth a warning, but it was asked for: no failure.
	if err := proxy.Drain(deadline); err != nil {
		log.Warn("requests cut at the end of the drain time", "error", err)
	}
	proxy.Close()
	closeLog()
	closeAdmin(adminServer)
	g.Wait()
	log.Info("stopped", "drained", time.Since(began).Round(time.Millisecond).String())
	return adminErr
}

// logPanic tells when nobody in a pool is usable, and when that has ended.
func logPanic(log *slog.Logger) func(endpoint string, panicking, refuses bool) {
	return func(endpoint string, panicking, refuses bool) {
		switch {
		case !panicking:
			log.Warn("a backend is usable again", "endpoint", endpoint)
		case refuses:
			log.Warn("no backend is usable: requests are refused", "endpoint", endpoint)
		default:
			log.Warn("no backend is usable: all are used", "endpoint", endpoint)
		}
	}
}

func closeAdmin(a *admin.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	a.Close(ctx)
}

// endLog writes the rest of the access log, unless nobody takes it.
func endLog(w *logfile.Writer, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := w.Close(ctx); err != nil {
		log.Warn("access log lines lost at the end", "error", err)
	}
}

// onSignal calls f for each signal until stop.
func onSignal(sig os.Signal, f func()) (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, sig)
	var g sync.WaitGroup
	g.Go(func() {
		for range signals {
			f()
		}
	})
	return func() {
		signal.Stop(signals)
		close(signals)
		g.Wait()
	}
}

// certificates reads the files for mutual TLS; nil: the stream is plaintext.
func (s *settings) certificates(log *slog.Logger) (*identity.Certificates, error) {
	if !s.tls.Given() {
		return nil, nil
	}
	c, err := identity.Load(s.tls, identity.DataPlane, log)
	if err != nil {
		return nil, fmt.Errorf("certificates: %w", err)
	}
	return c, nil
}

func expiry(c *identity.Certificates) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "dataplane_tls_certificate_expiry_timestamp_seconds",
		Help: "When the certificate ends that the data plane presents to control planes, in Unix time.",
	}, func() float64 { return float64(c.Expiry().Unix()) })
}

func threadsGauge(n int) prometheus.Collector {
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "dataplane_threads", Help: "Threads that forward requests, each with an event loop.",
	})
	g.Set(float64(n))
	return g
}

func buildInfo() prometheus.Collector {
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "dataplane_build_info", Help: "The program's version, in labels; the value is 1.",
		ConstLabels: prometheus.Labels{"version": build(), "goversion": runtime.Version()},
	})
	g.Set(1)
	return g
}
