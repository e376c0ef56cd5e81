// Package admin serves what operators and their tools read of a control plane
// over HTTP: a page, metrics, health, readiness and the status. Nothing can be
// changed here.
package admin

import (
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
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
	a := &api{fleet: fleet}
	a.status.make = func() *document { return newDocument(fleet.Status().JSON()) }
	mux.HandleFunc("GET /api/v1/status", a.getStatus)
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

// api answers with JSON.
type api struct {
	fleet  Fleet
	status shared[*document]
}

func (a *api) getStatus(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	switch name, all := query.Get("endpoint"), query.Get("endpoints"); {
	case all != "" && all != "all":
		text(w, http.StatusBadRequest, "endpoints can only be: all; endpoint=NAME asks for one\n")
	case name != "" || all != "":
		document := a.fleet.Status()
		var err error
		if document.Endpoints, err = a.fleet.Endpoints(name); err != nil {
			text(w, http.StatusNotFound, err.Error()+"\n")
			return
		}
		newDocument(document.JSON()).serve(w, r)
	default:
		document, age := a.status.get(maxAge(r))
		w.Header().Set("Age", strconv.Itoa(int(age.Seconds())))
		document.serve(w, r)
	}
}

// text answers with plain text.
func text(w http.ResponseWriter, code int, body string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	fmt.Fprint(w, body)
}
