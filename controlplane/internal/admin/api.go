package admin

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"reverseproxy/controlplane/internal/status"
)

// api answers with JSON.
type api struct {
	fleet  Fleet
	status shared[*document]
	look   shared[*status.Look]
	// diffing is held by who has something compared: texts may be large, and readers
	// many.
	diffing sync.Mutex
}

func newAPI(fleet Fleet) *api {
	a := &api{fleet: fleet}
	a.status.make = func() *document { return newDocument(fleet.Status().JSON()) }
	a.look.make = fleet.Look
	return a
}

func (a *api) register(mux *http.ServeMux) {
	mux.HandleFunc("GET /api/v1/status", a.getStatus)
	mux.HandleFunc("GET /api/v1/endpoints", a.getEndpoints)
	mux.HandleFunc("GET /api/v1/rollout", a.getRollout)
	mux.HandleFunc("GET /api/v1/history", a.getHistory)
	mux.HandleFunc("GET /api/v1/diff", a.getDiff)
}

func (a *api) getStatus(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	switch name, all := query.Get("endpoint"), query.Get("endpoints"); {
	case all != "" && all != "all":
		text(w, http.StatusBadRequest, "endpoints can only be: all; endpoint=NAME asks for one\n")
	case name != "" || all != "":
		s := a.fleet.Status()
		var err error
		if s.Endpoints, err = a.fleet.Endpoints(name); err != nil {
			text(w, http.StatusNotFound, err.Error()+"\n")
			return
		}
		newDocument(s.JSON()).serve(w, r)
	default:
		d, age := a.status.get(maxAge(r))
		setAge(w, age)
		d.serve(w, r)
	}
}

// Endpoints that are listed when the number is not said, and when it is, at most.
const usualEndpoints, mostEndpoints = 100, 1000

func (a *api) getEndpoints(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	limit, err := limitOf(query)
	if err != nil {
		text(w, http.StatusBadRequest, err.Error()+"\n")
		return
	}
	look, age := a.look.get(maxAge(r))
	var t status.Traffic
	if name := query.Get("endpoint"); name != "" {
		list, err := a.fleet.Endpoints(name)
		if err != nil {
			text(w, http.StatusNotFound, err.Error()+"\n")
			return
		}
		t = look.Traffic(func(n, _ string) bool { return n == name }, 1)
		if len(t.Endpoints) == 1 && len(list) == 1 {
			t.Endpoints[0].Backends = list[0].Backends
		}
	} else {
		search := strings.ToLower(query.Get("search"))
		t = look.Traffic(func(name, takes string) bool {
			return search == "" || strings.Contains(strings.ToLower(name), search) || strings.Contains(strings.ToLower(takes), search)
		}, limit)
	}
	setAge(w, age)
	newDocument(t.JSON()).serve(w, r)
}

// limitOf returns the number of endpoints that are asked for.
func limitOf(query url.Values) (int, error) {
	given := query.Get("limit")
	if given == "" {
		return usualEndpoints, nil
	}
	limit, err := strconv.Atoi(given)
	if err != nil || limit < 0 || limit > mostEndpoints {
		return 0, fmt.Errorf("limit is a number from 0 to %d, not %q", mostEndpoints, given)
	}
	return limit, nil
}

func (a *api) getRollout(w http.ResponseWriter, r *http.Request) {
	newDocument(a.fleet.Rollout().JSON()).serve(w, r)
}

func (a *api) getHistory(w http.ResponseWriter, r *http.Request) {
	h, err := a.fleet.History(r.Context())
	if err != nil {
		fail(w, err)
		return
	}
	newDocument(h.JSON()).serve(w, r)
}

func (a *api) getDiff(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	from, err := strconv.ParseUint(query.Get("from"), 10, 64)
	if err != nil || from == 0 {
		text(w, http.StatusBadRequest, "from is the number of a revision, and so is to, without which the newest is meant\n")
		return
	}
	var to uint64
	if given := query.Get("to"); given != "" {
		if to, err = strconv.ParseUint(given, 10, 64); err != nil {
			text(w, http.StatusBadRequest, "to is the number of a revision\n")
			return
		}
	}
	a.diffing.Lock()
	defer a.diffing.Unlock()
	d, err := a.fleet.Diff(r.Context(), from, to)
	if err != nil {
		fail(w, err)
		return
	}
	newDocument(d.JSON()).serve(w, r)
}

// fail answers with an error that has a gRPC code.
func fail(w http.ResponseWriter, err error) {
	s, code := grpcstatus.Convert(err), http.StatusInternalServerError
	if s.Code() == codes.NotFound {
		code = http.StatusNotFound
	}
	text(w, code, s.Message()+"\n")
}

// setAge says how old an answer is that was made for somebody else.
func setAge(w http.ResponseWriter, age time.Duration) {
	w.Header().Set("Age", strconv.Itoa(int(age.Seconds())))
}
