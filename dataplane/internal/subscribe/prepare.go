package subscribe

import (
	"errors"

	"reverseproxy/dataplane/internal/activate"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// held is something the control plane said about a table that is to be ready and not
// yet in force.
type held struct {
	task
	what what
}

// what is to be done about it.
type what int

const (
	prepare what = iota // the offer is to be made ready
	commit              // what is ready is to be put in force
	discard             // it is not wanted, or the stream has ended on which it came
)

// hold does what is to be done.
func (s *Subscriber) hold(h held) {
	switch h.what {
	case prepare:
		s.o.Quietly(s.size(h.offer), func() { s.prepare(h.task) })
	case commit:
		s.commit(h.task)
	case discard:
		s.drop()
	}
}

// prepare makes the table of a task ready, or refuses it. What was ready before is
// dropped: there is never more than one.
func (s *Subscriber) prepare(t task) {
	s.drop()
	err := s.makeReady(&t)
	var unusable *unusableDelta
	switch {
	case errors.Is(err, activate.ErrDraining):
		// No verdict on the table; the goodbye is on its way.
	case errors.As(err, &unusable):
		s.askForWhole(t, unusable)
	case err != nil:
		s.o.Log.Error("route table cannot be prepared", "version", t.version, "revision", t.revision, "error", err)
		t.report(rejected(t, err))
	default:
		s.ready = t.offer
		t.report(&routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Prepared{
			Prepared: &routetablev1.Prepared{Version: t.version},
		}})
	}
}

// makeReady unpacks the table and has it prepared.
func (s *Subscriber) makeReady(t *task) error {
	if err := s.refusedBefore(t); err != nil {
		return err
	}
	if t.offer.base != "" {
		return s.withMade(t, s.o.Activator.PrepareMade)
	}
	encoded, err := t.offer.unpack()
	if err != nil {
		s.o.Activator.Refuse()
		return err
	}
	return s.o.Activator.Prepare(encoded, t.version, t.revision)
}

// commit puts in force what is ready.
func (s *Subscriber) commit(t task) {
	err := s.o.Activator.Commit(t.version, t.revision)
	switch {
	case errors.Is(err, activate.ErrDraining):
		return
	case errors.Is(err, activate.ErrNotPrepared):
		// A heartbeat would not tell that it has come, and the control plane would wait.
		s.askForWhole(t, err)
		return
	}
	committed := *s.ready
	committed.revision = t.revision
	t.offer, s.ready = &committed, nil
	if err != nil {
		s.waitForPort(t, err)
		s.o.Log.Error("prepared route table rejected", "version", t.version, "revision", t.revision, "error", err)
		t.report(rejected(t, err))
		return
	}
	s.applied(t)
}

// drop forgets what is ready.
func (s *Subscriber) drop() {
	s.ready = nil
	s.o.Activator.Discard()
}
