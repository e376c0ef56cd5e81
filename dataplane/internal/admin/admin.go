// Package admin is the data plane's own HTTP server, apart from the proxy port:
// metrics, health, readiness and the configuration in force. It only looks; it
// changes nothing.
package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"reverseproxy/dataplane/internal/activate"
	"reverseproxy/dataplane/internal/health"
)

// Options say what is shown.
type Options struct {
	Activator *activate.Activator
	// Health tells about the addresses of backends; nil: nobody does.
	Health  *health.Manager
	Metrics prometheus.Gatherer
	Log     *slog.Logger
}

// Server is a listening admin server. Methods may be called from several
// goroutines.
type Server struct {
	listener net.Listener
	server   *http.Server
}

// Listen opens the admin port, so that its address is known before there is
// anything to show. Port 0 is any free one.
func Listen(address string) (*Server, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("admin server: %w", err)
	}
	return &Server{listener: l, server: &http.Server{
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      time.Minute, // a large /config or /metrics over a slow line
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
	}}, nil
}

// Addr returns the address it listens on.
func (s *Server) Addr() *net.TCPAddr { return s.listener.Addr().(*net.TCPAddr) }

// Serve answers requests until Close.
func (s *Server) Serve(o Options) error {
	s.server.Handler = Handler(o)
	s.server.ErrorLog = slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug)
	if err := s.server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin server: %w", err)
	}
	return nil
}

// Close stops the server; requests that are being answered get until ctx ends.
func (s *Server) Close(ctx context.Context) {
	if s.server.Shutdown(ctx) != nil {
		s.server.Close()
	}
	s.listener.Close() // when it was never served
}

// Handler answers the admin requests.
func Handler(o Options) http.Handler {
	m := http.NewServeMux()
	m.Handle("GET /metrics", promhttp.HandlerFor(o.Metrics, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn),
		// One broken collector must not hide the others.
		ErrorHandling: promhttp.ContinueOnError,
	}))
	m.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { line(w, http.StatusOK, "ok") })
	m.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := o.Activator.Ready(); err != nil {
			line(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		line(w, http.StatusOK, "ready")
	})
	m.HandleFunc("GET /config", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = writeConfig(w, o.Activator.InForce(), o.Health) // fails only when the client is gone
	})
	m.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, index) // fails only when the client is gone
	})
	return m
}

const index = `reverseproxy data plane

/metrics  counters, for Prometheus
/healthz  200 while the process lives
/readyz   200 while requests may be sent here, else 503 and the reason
/config   the route table in force, as JSON
`

func line(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	fmt.Fprintln(w, text)
}
