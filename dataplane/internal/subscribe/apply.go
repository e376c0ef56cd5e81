package subscribe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"reverseproxy/dataplane/internal/activate"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// A report must fit into one message, whatever is wrong with a table of 100,000
// endpoints. A control plane of an earlier release ends the stream for a longer text about
// a backend.
const (
	maxProblems    = 100
	maxProblemSize = 1000
)

// task is something the control plane (or the disk) said about a version. It is
// a table to put in force when offer is set, a table that could not even be
// received when refused is set, else a confirmation.
type task struct {
	session  *session // to report to; nil for the disk
	version  string
	revision uint64
	offer    *offer
	source   activate.Source
	refused  error
}

// submit hands a task to the applying goroutine: put replaces one that has not begun.
func (s *Subscriber) submit(t task) { put(s.tasks, t) }

// put puts the newest into a slot, in place of what is there. It never waits. Only one
// goroutine puts things into a slot.
func put[T any](slot chan T, newest T) {
	for {
		select {
		case slot <- newest:
			return
		default:
		}
		select {
		case <-slot:
		default:
		}
	}
}

// Restore puts the table of an earlier run in force, when there is one. Whatever
// is wrong with it is logged: the control plane will send another.
func (s *Subscriber) Restore() {
	s.restorePlace()
	o, err := s.o.Store.load()
	switch {
	case o == nil && err != nil:
		s.o.Log.Error("stored route table ignored", "file", s.o.Store.Path(), "error", err)
		return
	case o == nil:
		s.o.Log.Info("no stored route table", "file", s.o.Store.Path())
		return
	case err != nil:
		// The control plane sends what is missing.
		s.o.Log.Warn("stored route table is an older one", "file", s.o.Store.Path(),
			"version", o.version, "revision", o.revision, "error", err)
	}
	s.apply(task{version: o.version, revision: o.revision, offer: o, source: activate.Disk})
}

// restorePlace takes the place of an earlier run: data planes of one host that start
// together spread without a control plane, too.
func (s *Subscriber) restorePlace() {
	place, err := s.o.Store.loadPlace()
	if err != nil {
		s.o.Log.Error("stored place ignored", "error", err)
		return
	}
	s.placed = place
	s.o.Place.Store(place)
}

// savePlace keeps the place on disk unless it is there. Without it the first requests
// of the next start spread less evenly, that is all: it is tried once.
func (s *Subscriber) savePlace() {
	place := s.o.Place.Load()
	if place == s.placed {
		return
	}
	s.placed = place
	if err := s.o.Store.savePlace(place); err != nil {
		s.o.Log.Warn("place not stored", "error", err)
	}
}

// applyTasks works off tasks until ctx ends.
func (s *Subscriber) applyTasks(ctx context.Context) {
	again := time.NewTicker(s.o.Heartbeat)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case t := <-s.tasks:
			s.savePlace() // what is reported as applied starts again like this
			s.apply(t)
		case h := <-s.holds:
			s.savePlace()
			s.hold(h)
		case <-again.C:
			s.savePlace()
			if s.unsaved != nil {
				s.save(s.unsaved)
			}
			// The control plane does not send a refused table again, so a data
			// plane that serves nothing waits for the port by itself.
			if s.waiting != nil && s.o.Activator.InForce() == nil {
				s.apply(*s.waiting)
			}
		}
	}
}

// apply does what the task asks and reports it.
func (s *Subscriber) apply(t task) {
	switch {
	case t.offer != nil:
		s.o.Quietly(s.size(t.offer), func() { s.decide(t) })
	case t.refused != nil:
		s.decide(t)
	default:
		s.confirm(t)
	}
}

// decide puts the table of the task in force or refuses it.
func (s *Subscriber) decide(t task) {
	s.drop() // it was for when this would not come
	again := s.waiting != nil && s.waiting.offer == t.offer
	err := s.putInForce(&t)
	var unusable *unusableDelta
	switch {
	case errors.Is(err, activate.ErrDraining):
		// No verdict on the table; the goodbye is on its way.
		return
	case errors.As(err, &unusable):
		s.askForWhole(t, unusable)
		return
	case err != nil:
		s.waitForPort(t, err)
		if again {
			// Said and reported when it was new.
			s.o.Log.Debug("route table still rejected", "version", t.version, "error", err)
			return
		}
		level := slog.LevelError
		if refused := t.version + ": " + err.Error(); refused != s.refused {
			s.refused = refused
		} else {
			level = slog.LevelDebug // sent again and again, it is still one refusal
		}
		s.o.Log.Log(context.Background(), level, "route table rejected", "version", t.version, "revision", t.revision, "source", t.source, "error", err)
		t.report(rejected(t, err))
		return
	}
	s.applied(t)
}

// waitForPort has the table of a task tried again that was refused only because its port
// is taken, while nothing is served.
func (s *Subscriber) waitForPort(t task, err error) {
	if errors.Is(err, activate.ErrListen) && s.o.Activator.InForce() == nil {
		s.waiting = &t
	}
}

// applied takes note that the table of the task is in force, and reports it.
func (s *Subscriber) applied(t task) {
	s.waiting, s.refused = nil, ""
	t.settle()
	if t.source == activate.Stream {
		s.save(t.offer)
	}
	t.report(&routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Applied{Applied: &routetablev1.Applied{
		Version: t.version, Revision: t.revision,
	}}})
}

// rejected is the report that the table of a task is refused.
func rejected(t task, err error) *routetablev1.SubscribeRequest {
	return &routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Rejected{Rejected: &routetablev1.Rejected{
		Version: t.version, Revision: t.revision, Problems: problems(err),
	}}}
}

// confirm takes note that the version in force is the desired one.
func (s *Subscriber) confirm(t task) {
	if !s.o.Activator.Confirm(t.version, t.revision) {
		// A table of the stream before may have come into force since the hello. The
		// control plane must not believe the hello until the next heartbeat.
		s.o.Log.Warn("control plane confirms a version that is not in force", "version", t.version)
		t.report(s.heartbeat())
		return
	}
	t.settle()
	// The control plane shows where the table comes from and its revision, which
	// may just have changed: it should not have to wait for the next heartbeat.
	t.report(s.heartbeat())
	if s.unsaved != nil {
		return // it is newer than what is on disk
	}
	// The control plane counts on with the highest revision its data planes know.
	s.save(same(t.version, t.revision))
}

// putInForce unpacks the table and has it activated.
func (s *Subscriber) putInForce(t *task) error {
	if err := s.refusedBefore(t); err != nil {
		return err
	}
	if t.source == activate.Stream && s.o.Activator.Confirm(t.version, t.revision) {
		t.offer = same(t.version, t.revision) // nobody has looked into this one
		return nil
	}
	if t.offer.base != "" {
		return s.withMade(t, s.o.Activator.ActivateMade)
	}
	encoded, err := t.offer.unpack()
	if err != nil {
		s.o.Activator.Refuse()
		return err
	}
	return s.o.Activator.Activate(encoded, t.version, t.revision, t.source)
}

// refusedBefore returns why a table could not even be received, nil when it was.
func (s *Subscriber) refusedBefore(t *task) error {
	var refused *refusal
	if errors.As(t.refused, &refused) && refused.delta {
		return &unusableDelta{refused.reason}
	}
	if t.refused != nil {
		s.o.Activator.Refuse()
	}
	return t.refused
}

// save keeps the table in force on disk. A data plane that cannot write serves
// all the same, and tries again later: the disk may have room then.
func (s *Subscriber) save(o *offer) {
	err := s.store(o)
	if err == nil {
		s.unsaved = nil
		return
	}
	s.storeFailures.Add(1)
	if s.unsaved == nil {
		s.o.Log.Error("route table not stored", "file", s.o.Store.Path(), "error", err)
	}
	s.unsaved = o
}

// store keeps what an offer has made the table in force. A delta is put behind the table
// that it starts from, or the whole table is stored.
func (s *Subscriber) store(o *offer) error {
	if o.base != "" {
		err := s.o.Store.change(o)
		if err == nil {
			return nil
		}
		s.o.Log.Debug("storing the whole route table", "reason", err)
		o = pack(s.o.Activator.InForce().Table.Encoded(), o.version, o.revision)
	}
	return s.o.Store.save(o)
}

func (t *task) report(m *routetablev1.SubscribeRequest) {
	if t.session != nil {
		t.session.report(m)
	}
}

func (t *task) settle() {
	if t.session != nil {
		t.session.settled.Store(true)
	}
}

// problems turns the reasons for a refusal into their wire form.
func problems(err error) []*routetablev1.Problem {
	found := routetable.Problems(err)
	ps := make([]*routetablev1.Problem, 0, min(len(found), maxProblems+1))
	for i, p := range found {
		if i == maxProblems {
			ps = append(ps, &routetablev1.Problem{Message: fmt.Sprintf("and %d more problems", len(found)-i)})
			break
		}
		ps = append(ps, &routetablev1.Problem{Path: wireText(p.Path), Message: wireText(p.Message)})
	}
	return ps
}

// wireText makes s fit for a protobuf string, which must be valid UTF-8, and no longer
// than maxProblemSize.
func wireText(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= maxProblemSize {
		return s
	}
	const more = "…"
	return strings.ToValidUTF8(s[:maxProblemSize-len(more)], "") + more
}
