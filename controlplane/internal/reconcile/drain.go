package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"reverseproxy/controlplane/internal/compile"
	"reverseproxy/controlplane/internal/fleet"
	"reverseproxy/controlplane/internal/source"
	fleetv1 "reverseproxy/proto/fleet/v1"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// DrainsFileName is the name of the file in --state-dir that keeps the drained
// backends.
const DrainsFileName = "drained.json"

const (
	// maxDrainedBytes bounds the URLs of all drained backends: they are told to every
	// data plane in one message.
	maxDrainedBytes = 256 << 10
	// shownEmptied is how many endpoints an error names.
	shownEmptied = 3
)

// drains is what a control plane remembers about drained backends over restarts.
type drains struct {
	Backends []string `json:"backends"` // pool URLs, sorted
}

// ReadDrains returns the backends that were drained in the last run; a missing file
// is a first run. A damaged one is an error: without it, backends that somebody works
// on would get requests.
func ReadDrains(path string) ([]string, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var d drains
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, fmt.Errorf("%s, which keeps the drained backends, is damaged: %w; "+
			"remove it to start without any, and drain them again", path, err)
	}
	return d.Backends, nil
}

// DrainError is a backend that is not drained, or not taken back, with the reason.
type DrainError struct {
	// Unknown: there is no such backend; otherwise it cannot be done now.
	Unknown bool
	reason  string
}

// Error returns the reason.
func (e *DrainError) Error() string { return e.reason }

// DrainOutcome is what draining or taking back a backend has come to.
type DrainOutcome struct {
	Table     *fleet.Table // desired now
	Changed   bool
	Kept      bool // over a restart
	Endpoints int  // that have the backend
}

// Drain makes a backend get no new requests, from no endpoint, or with undrain takes
// that back. It stays drained whatever becomes of the file, also while it is not in
// the file. A *DrainError changes nothing.
func (l *Loader) Drain(ctx context.Context, url string, undrain, force bool, author string) (DrainOutcome, error) {
	if err := l.take(ctx); err != nil {
		return DrainOutcome{}, err
	}
	defer l.free()
	next := maps.Clone(l.drained)
	endpoints := l.having(url)
	switch {
	case undrain && !l.drained[url]:
		return DrainOutcome{}, notDrained(url, l.drained)
	case undrain:
		delete(next, url)
	case !l.drained[url] && endpoints == 0:
		return DrainOutcome{}, unknownBackend(url, l.content)
	default:
		next[url] = true
	}
	before := l.fleet.Desired()
	changed := len(next) != len(l.drained)
	if changed {
		if err := l.checkDrains(next, before, force || undrain); err != nil {
			return DrainOutcome{}, err
		}
		if err := l.acceptDrains(next, author, message(url, undrain)); err != nil {
			return DrainOutcome{}, err
		}
		l.opts.Log.Info("backend drained or taken back", "backend", url, "drained", !undrain, "endpoints", endpoints)
	}
	return DrainOutcome{l.fleet.Desired(), changed, l.opts.DrainsFile != "", endpoints}, nil
}

// checkDrains refuses a set of drained backends that is too large or leaves an
// endpoint without any, unless that is accepted.
func (l *Loader) checkDrains(next map[string]bool, before *fleet.Table, force bool) error {
	bytes := 0
	for url := range next {
		bytes += len(url)
	}
	if len(next) > fleet.MaxDrained || bytes > maxDrainedBytes {
		return &DrainError{reason: fmt.Sprintf("too many backends would be drained: at most %d, and %d KiB of URLs, are allowed; "+
			"use weight: 0 in the file", fleet.MaxDrained, maxDrainedBytes>>10)}
	}
	if force {
		return nil
	}
	emptied := compile.Emptied(before.Proto, compile.Drain(l.content, next))
	if l.base != nil && len(emptied) == 0 {
		emptied = compile.Emptied(l.base.table.Proto, compile.Drain(l.base.content, next))
	}
	if len(emptied) == 0 {
		return nil
	}
	return &DrainError{reason: fmt.Sprintf("no backend would be left for %s, whose requests would be answered 503; "+
		"add another backend, or use --force if that is meant", namesOf(emptied))}
}

// namesOf lists endpoints, in words.
func namesOf(endpoints []string) string {
	text := "endpoint " + endpoints[0]
	if len(endpoints) > 1 {
		text = "endpoints " + strings.Join(endpoints[:min(len(endpoints), shownEmptied)], ", ")
	}
	if more := len(endpoints) - shownEmptied; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// keepDrains writes the file of drained backends, if there is one.
func (l *Loader) keepDrains(drained map[string]bool) error {
	if l.opts.DrainsFile == "" {
		return nil
	}
	data, err := json.Marshal(drains{Backends: slices.Sorted(maps.Keys(drained))})
	if err != nil {
		return err
	}
	return source.Replace(l.opts.DrainsFile, append(data, '\n'))
}

// acceptDrains makes a set of drained backends the one that counts, with the running
// configuration as it is.
func (l *Loader) acceptDrains(next map[string]bool, author, message string) error {
	data, err := l.text()
	if err != nil {
		return err
	}
	_, _, err = l.accept(change{
		data: data, content: l.content, drained: next, origin: fleetv1.Origin_ORIGIN_DRAIN, author: author, message: message,
		settle: func() error { return l.keepDrains(next) },
	})
	return err
}

// message is what the history says about a drain.
func message(url string, undrain bool) string {
	if undrain {
		return "undrain backend " + url
	}
	return "drain backend " + url
}

// tellDrained tells the fleet which backends are drained, after their table has been
// published. The turn is held.
func (l *Loader) tellDrained() {
	if len(l.drained) == 0 {
		l.fleet.SetDrained(nil)
		return
	}
	configured := map[string]bool{}
	for _, content := range l.contents() {
		for _, e := range content.GetEndpoints() {
			for _, b := range e.GetPool() {
				if l.drained[b.GetUrl()] {
					configured[b.GetUrl()] = true
				}
			}
		}
	}
	list := make([]fleet.Drained, 0, len(l.drained))
	for url := range l.drained {
		list = append(list, fleet.Drained{URL: url, Configured: configured[url]})
	}
	l.fleet.SetDrained(list)
}

// contents are those of the tables that data planes are to run: during a roll-out two.
func (l *Loader) contents() []*routetablev1.RouteTable {
	if l.base != nil {
		return []*routetablev1.RouteTable{l.content, l.base.content}
	}
	return []*routetablev1.RouteTable{l.content}
}

// having counts the endpoints that have a backend.
func (l *Loader) having(url string) int {
	names := map[string]bool{}
	for _, content := range l.contents() {
		for _, e := range content.GetEndpoints() {
			if slices.ContainsFunc(e.GetPool(), func(b *routetablev1.Backend) bool { return b.GetUrl() == url }) {
				names[e.GetName()] = true
			}
		}
	}
	return len(names)
}

func unknownBackend(url string, t *routetablev1.RouteTable) error {
	urls := map[string]bool{}
	for _, e := range t.GetEndpoints() {
		for _, b := range e.GetPool() {
			urls[b.GetUrl()] = true
		}
	}
	return &DrainError{true, fmt.Sprintf("no pool has the backend %s, written exactly so%s", url, nearTo(url, urls))}
}

func notDrained(url string, drained map[string]bool) error {
	if len(drained) == 0 {
		return &DrainError{true, fmt.Sprintf("%s is not drained; no backend is", url)}
	}
	return &DrainError{true, fmt.Sprintf("%s is not drained%s", url, nearTo(url, drained))}
}
