package fleet

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

// UnpreparedError says why a table cannot be put in force everywhere at once.
type UnpreparedError struct {
	// Reasons are one for each data plane that is in the way, with its id.
	Reasons []string
}

// Error returns all reasons.
func (e *UnpreparedError) Error() string { return strings.Join(e.Reasons, "\n") }

// preparation is a table that all data planes are to have ready before any of them
// runs it. Fleet.mu guards it.
type preparation struct {
	table  *Table
	frames []*frame
	// expected is how many there must be at least, and late, after the timeout, when those
	// fail that have not answered.
	expected int
	timeout  time.Duration
	late     time.Time
	// waiting are those that have not said that it is ready; ready those that have, or
	// run it already.
	waiting, ready map[*session]bool
	failed         []string
	// news tells that there may be a verdict.
	news chan struct{}
}

// Prepare sends a table to every data plane that is known, or comes meanwhile, and
// returns nil when all of them have it ready, of which there are as many as expected at
// least. An *UnpreparedError comes as soon as one cannot have it, or after the timeout.
// Nothing has changed then, or before the table is published: that is the switch. Release
// is to be called after Prepare in any case; one table is prepared at a time. Until then,
// Prepare of the same table waits on, for the rest of the time, for those who have come.
func (f *Fleet) Prepare(ctx context.Context, t *Table, expected int, timeout time.Duration) error {
	p := f.preparationOf(t)
	if p == nil {
		p = f.beginPreparation(t, expected, timeout)
	}
	late := time.NewTimer(time.Until(p.late))
	defer late.Stop()
	for {
		over, err := f.verdict(p)
		if over {
			return err
		}
		select {
		case <-p.news:
		case <-late.C:
			f.tooLate(p)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Prepared reports whether the table that is prepared is still ready everywhere: data
// planes come and go, and are given other tables, until it is published.
func (f *Fleet) Prepared(t *Table) bool {
	p := f.preparationOf(t)
	if p == nil {
		return false
	}
	over, err := f.verdict(p)
	return over && err == nil
}

// preparationOf returns the preparation of a table, nil when it is not prepared.
func (f *Fleet) preparationOf(t *Table) *preparation {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.preparing; p != nil && p.table == t {
		return p
	}
	return nil
}

// beginPreparation makes the table the one that is prepared.
func (f *Fleet) beginPreparation(t *Table, expected int, timeout time.Duration) *preparation {
	p := &preparation{
		table:    t,
		frames:   t.chunks(t.payload, &routetablev1.Chunk{Encoding: routetablev1.Encoding_ENCODING_GZIP, Hold: true}),
		expected: expected,
		timeout:  timeout,
		late:     time.Now().Add(timeout),
		waiting:  map[*session]bool{},
		ready:    map[*session]bool{},
		news:     make(chan struct{}, 1),
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.preparing = p
	for id := range f.sessions {
		for _, s := range f.visible(id) {
			f.involve(s)
		}
	}
	p.count() // before the first answer, which may be a refusal
	return p
}

// Release ends a preparation: where its table is ready and has not been published, it is
// dropped.
func (f *Fleet) Release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.preparing = nil
	for _, sessions := range f.sessions {
		for _, s := range sessions {
			if s.held != nil {
				s.poke()
			}
		}
	}
}

// verdict reports whether all is ready, or never will be.
func (f *Fleet) verdict(p *preparation) (over bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p.count()
	if len(p.failed) > 0 {
		slices.Sort(p.failed)
		return true, &UnpreparedError{p.failed}
	}
	return len(p.waiting) == 0, nil
}

// count notes that there are fewer than expected, unless it is known who is in the way.
// Fleet.mu is held.
func (p *preparation) count() {
	if n := len(p.waiting) + len(p.ready); n < p.expected && len(p.failed) == 0 {
		p.failed = append(p.failed, fmt.Sprintf("data planes: %d are connected, at least %d are expected", n, p.expected))
	}
}

// tooLate fails those that have not answered.
func (f *Fleet) tooLate(p *preparation) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, goal := f.opts.Now(), f.goal.Load()
	for s := range p.waiting {
		why := fmt.Sprintf("did not say within %s that it is ready", p.timeout)
		if trouble := f.trouble(s, goal, now); trouble != "" {
			why += ": " + trouble
		}
		p.fail(s, why)
	}
}

// fail notes that a session is in the way.
func (p *preparation) fail(s *session, why string) {
	p.failed = append(p.failed, fmt.Sprintf("data plane %s: %s", s.id, why))
	p.tell()
}

// tell wakes who waits for the verdict; it never blocks.
func (p *preparation) tell() {
	select {
	case p.news <- struct{}{}:
	default:
	}
}

// involve has a session take part in the preparation that goes on, if one does. f.mu is
// held.
func (f *Fleet) involve(s *session) {
	p := f.preparing
	if p == nil || p.waiting[s] || p.ready[s] {
		return
	}
	switch now := f.opts.Now(); {
	case !s.connected && s.turned:
		// It takes part when it comes back, unless it has chosen another control plane.
	case !s.connected:
		p.fail(s, fmt.Sprintf("is disconnected, for %s", now.Sub(s.lastContact).Round(time.Second)))
	case f.silent(s, now):
		p.fail(s, "is "+f.trouble(s, f.goal.Load(), now))
	case !s.prepares:
		p.fail(s, "cannot prepare a route table: it is of an earlier release ("+s.build+")")
	case s.version == p.table.Version && s.flight == nil:
		p.ready[s] = true
	default:
		p.waiting[s] = true
		s.poke()
	}
}

// depart takes a session out of the preparation and of the switch that go on. why says
// what it lacks; "" when nothing: it is not there any more because that was wanted. f.mu
// is held.
func (f *Fleet) depart(s *session, why string) {
	f.switched(s, false)
	p := f.preparing
	if p == nil || !p.waiting[s] && !p.ready[s] {
		return
	}
	delete(p.waiting, s)
	delete(p.ready, s)
	if why != "" {
		p.fail(s, why)
	}
	p.tell()
}

// isReady takes a session's word that a table is ready. f.mu is held.
func (f *Fleet) isReady(s *session, version string) {
	p := f.preparing
	if p == nil || s.held != p.table || s.held.Version != version {
		return // it is being told to drop it
	}
	s.ready = true
	if s.parked == version {
		s.unpark() // what kept it from this version is gone
	}
	delete(p.waiting, s)
	p.ready[s] = true
	if len(p.waiting) == 0 {
		p.tell()
	}
}

// cannotPrepare takes a session's word that it refuses the table that it was sent to
// prepare, and reports whether it is about that. f.mu is held.
func (f *Fleet) cannotPrepare(s *session, r *routetablev1.Rejected) bool {
	if !s.preparing(r.GetVersion()) {
		return false
	}
	s.held = nil
	reasons := describe(r.GetProblems())
	f.opts.Log.Warn("data plane cannot prepare", "id", s.id, "version", r.GetVersion(), "error", reasons)
	f.depart(s, reasons)
	return true
}

// preparing reports whether the session has been sent a version to prepare and has not
// answered. Fleet.mu is held.
func (s *session) preparing(version string) bool {
	return s.held != nil && !s.ready && s.flight == nil && s.held.Version == version
}

// unhold notes that the session's data plane drops what it has ready, because it is sent
// a table to put in force; it is asked again afterwards. f.mu is held.
func (f *Fleet) unhold(s *session) {
	s.held, s.ready = nil, false
	if p := f.preparing; p != nil && p.ready[s] {
		delete(p.ready, s)
		p.waiting[s] = true
	}
}

// wantsHold reports whether the session is to be sent the table that is prepared. f.mu
// is held.
func (f *Fleet) wantsHold(s *session) bool {
	p := f.preparing
	return p != nil && p.waiting[s] && s.held != p.table && s.flight == nil
}

// wantsDrop reports whether the session has a table ready, or has been sent one, that is
// not prepared any more. f.mu is held.
func (f *Fleet) wantsDrop(s *session) bool {
	return s.held != nil && s.flight == nil && (f.preparing == nil || s.held != f.preparing.table)
}

// beginHold notes that the session is sent the table that is prepared, nil when it is
// not to be any more. With the base, if there is one, it may be sent as a delta.
func (f *Fleet) beginHold(s *session) (p *preparation, base *index) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !s.connected || !f.wantsHold(s) {
		return nil, nil
	}
	s.held, s.ready = f.preparing.table, false
	return f.preparing, f.baseOf(s, f.preparing.table)
}

// switches reports whether a session takes part in a preparation, or in the switch after
// one.
func (f *Fleet) switches(s *session) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, sw := f.preparing, f.switching
	return p != nil && (p.waiting[s] || p.ready[s]) || sw != nil && sw.waiting[s]
}

// prepares reports whether the preparation goes on.
func (f *Fleet) prepares(p *preparation) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.preparing == p
}

// takeDiscard returns what drops the table that the session has ready.
func (f *Fleet) takeDiscard(s *session) *routetablev1.SubscribeResponse {
	f.mu.Lock()
	defer f.mu.Unlock()
	version := ""
	if s.held != nil {
		version = s.held.Version
	}
	s.held, s.ready = nil, false
	return &routetablev1.SubscribeResponse{
		Message: &routetablev1.SubscribeResponse_Discard{Discard: &routetablev1.Discard{Version: version}},
	}
}

// takeCommit puts the table that the session has ready in flight, and returns what
// releases the switch to it.
func (f *Fleet) takeCommit(s *session) *routetablev1.SubscribeResponse {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.goal.Load().of(s)
	if !s.ready || s.held.Version != t.Version {
		return nil // there is another goal
	}
	s.flight, s.flightSince = t, f.opts.Now()
	s.held, s.ready = nil, false
	s.unpark()
	return &routetablev1.SubscribeResponse{
		Message: &routetablev1.SubscribeResponse_Commit{Commit: &routetablev1.Commit{Version: t.Version, Revision: t.Revision}},
	}
}

// switching is a prepared table that has been published. Fleet.mu guards it.
type switching struct {
	waiting     map[*session]bool // who has not switched yet
	first, last time.Time         // that one was seen to have switched
	done        chan struct{}     // closed when nobody is waited for
}

// release begins the switch to the table that is prepared. f.mu is held.
func (f *Fleet) release(t *Table) {
	p := f.preparing
	if p == nil || p.table.Version != t.Version {
		return
	}
	f.switching = &switching{waiting: maps.Clone(p.ready), done: make(chan struct{})}
	maps.DeleteFunc(f.switching.waiting, func(s *session, _ bool) bool {
		return s.version == t.Version // it has been there before
	})
	f.settleSwitch()
}

// switched takes note that a session's data plane runs the table of the switch that goes
// on, or will not. f.mu is held.
func (f *Fleet) switched(s *session, runs bool) {
	sw := f.switching
	if sw == nil || !sw.waiting[s] {
		return
	}
	delete(sw.waiting, s)
	if runs {
		now := f.opts.Now()
		if sw.first.IsZero() {
			sw.first = now
		}
		sw.last = now
	}
	f.settleSwitch()
}

// settleSwitch ends a switch in which nobody is waited for. f.mu is held.
func (f *Fleet) settleSwitch() {
	sw := f.switching
	if len(sw.waiting) > 0 {
		return
	}
	if !sw.first.IsZero() {
		f.metrics.spread.Observe(sw.last.Sub(sw.first).Seconds())
	}
	close(sw.done)
}

// Switched waits until every data plane that had a table ready has switched to it or is
// gone, and returns the time between the first and the last that was seen to; all is false
// when ctx ends before. It is to be called after the Publish that follows Prepare.
func (f *Fleet) Switched(ctx context.Context) (spread time.Duration, all bool) {
	f.mu.Lock()
	sw := f.switching
	f.mu.Unlock()
	select {
	case <-sw.done:
		return sw.last.Sub(sw.first), true // nobody changes it any more
	case <-ctx.Done():
		return 0, false
	}
}
