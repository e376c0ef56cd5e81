// Package admin serves what operators and their tools read of a control plane
// over HTTP: a page, metrics, health, readiness and the status. Nothing can be
// changed here.
package admin

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"reverseproxy/controlplane/internal/status"
	"reverseproxy/controlplane/internal/web"
)

// Fleet is what is shown.
type Fleet interface {
	// Status returns the configuration and the fleet.
	Status() status.Status
	// Endpoints returns the endpoint with a name, or, when it is empty, all that are
	// in use; an error says that there is no such endpoint.
	Endpoints(name string) ([]status.Endpoint, error)
	// Look returns the rates of all endpoints of the running configuration.
	Look() *status.Look
	// Rollout returns the roll-out that is going on, or else the last one, nil when there
	// has been none.
	Rollout() *status.Rollout
	// History returns the accepted configurations, and Diff what differs between two of
	// them; 0 is the newest. Errors have a gRPC code.
	History(ctx context.Context) (status.History, error)
	Diff(ctx context.Context, from, to uint64) (status.Diff, error)
}

// NewServer returns an HTTP server without an address. The functions are called
// for each request, from several goroutines.
func NewServer(metrics prometheus.Gatherer, fleet Fleet, ready func() bool, log *slog.Logger) *http.Server {
	mux := http.NewServeMux()
	errors := slog.NewLogLogger(log.Handler(), slog.LevelWarn)
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{ErrorLog: errors}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusOK, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !ready() {
			text(w, http.StatusServiceUnavailable, "not ready: data planes are not served\n")
			return
		}
		text(w, http.StatusOK, "ready\n")
	})
	newAPI(fleet).register(mux)
	web.Register(mux)
	return &http.Server{
		Handler:           web.Protect(mux),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          errors,
	}
}

// text answers with plain text.
func text(w http.ResponseWriter, code int, body string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	fmt.Fprint(w, body)
}
