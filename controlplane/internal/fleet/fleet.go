package fleet

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"reverseproxy/controlplane/internal/traffic"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// Defaults of the durations in Options.
const (
	DefaultApplyDeadline = 10 * time.Second
	DefaultSilenceLimit  = 15 * time.Second
	DefaultForgetAfter   = 15 * time.Minute
)

const (
	// maxDataPlanes bounds the memory that strangers with ever new ids can
	// take, connected or remembered.
	maxDataPlanes = 100_000
	// maxSessions bounds what one id can take: two runs of a data plane overlap during a
	// hand-over, and each stream that broke unnoticed stays until its keepalive ends it.
	maxSessions = 16
	// maxAdopted keeps a nonsensical revision from leaving no room to count on: the
	// history has numbers up to twice that.
	maxAdopted = 1 << 52
	// overdueFactor: a data plane that is alive, and has not answered for this
	// many apply deadlines, never will on this stream.
	overdueFactor = 3
	// turnAway is how long a data plane may be away that was asked to choose a control
	// plane anew. Then it has chosen another one, and is not missed here.
	turnAway = 3 * time.Second
	// announceDelay and announceEach, for each data plane, gather changes of their
	// number: ten thousand that come back at once are not a message to each of them
	// for each that has.
	announceDelay = 100 * time.Millisecond
	announceEach  = 100 * time.Microsecond
	// announceBatch is how many are told at once, and announcePause the time until the
	// next: each takes a buffer, and other streams have more to say.
	announceBatch = 200
	announcePause = 5 * time.Millisecond
)

// errFull is returned to a data plane for which there is no room.
var errFull = errors.New("too many data planes")

// Options of a Fleet. The zero value is usable.
type Options struct {
	// ApplyDeadline is how long a data plane may take to answer about a route
	// table before it counts as stale.
	ApplyDeadline time.Duration
	// SilenceLimit is how long a connected data plane may say nothing before
	// it counts as stale: three heartbeats.
	SilenceLimit time.Duration
	// ForgetAfter is how long a data plane that vanished without a goodbye is
	// remembered, and waited for.
	ForgetAfter time.Duration
	// Now is the clock; time.Now when nil.
	Now func() time.Time
	// Log gets every change in a data plane's state; nothing when nil.
	Log *slog.Logger
}

// withDefaults fills in what is not set.
func (o Options) withDefaults() Options {
	o.ApplyDeadline = cmp.Or(o.ApplyDeadline, DefaultApplyDeadline)
	o.SilenceLimit = cmp.Or(o.SilenceLimit, DefaultSilenceLimit)
	o.ForgetAfter = cmp.Or(o.ForgetAfter, DefaultForgetAfter)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Fleet is the desired table and the observed data planes. All methods may be
// called from several goroutines.
type Fleet struct {
	opts    Options
	metrics *metrics
	traffic *traffic.Store

	// goal is the one pointer that all streams follow. It is stored with mu held and
	// loaded freely.
	goal atomic.Pointer[Goal]

	mu sync.Mutex
	// sessions by id, in the order of registration: any number that are
	// connected, or a single one that is not.
	sessions map[string][]*session
	// live is how many of them are, and announcing that the streams are to be told.
	live       uint32
	announcing bool
	// announcement counts how often they were.
	announcement uint64
	places       places
	// preparing is what data planes are to have ready, nil when nothing is; switching is
	// the last switch to it.
	preparing *preparation
	switching *switching
	// versions are what deltas may start from.
	versions indexes
	// drained are the backends that are watched, sorted by URL; the slice is not
	// changed.
	drained []Drained

	// rows is how many rows all sessions keep; crowded: some were not, for want of
	// room.
	rows    atomic.Int64
	crowded atomic.Bool
}

// New returns a fleet without a desired table and without data planes.
func New(opts Options) *Fleet {
	opts = opts.withDefaults()
	return &Fleet{
		opts:     opts,
		metrics:  newMetrics(),
		traffic:  traffic.New(opts.Now),
		sessions: map[string][]*session{},
	}
}

// Traffic returns what the data planes have reported about requests.
func (f *Fleet) Traffic() *traffic.Store { return f.traffic }

// Goal returns what is to run where, nil before the first Publish.
func (f *Fleet) Goal() *Goal { return f.goal.Load() }

// Desired returns the desired table, nil before the first Publish.
func (f *Fleet) Desired() *Table {
	if g := f.Goal(); g != nil {
		return g.Table
	}
	return nil
}

// Publish makes a table the desired one and returns it. Revisions only grow: when they
// were continued from a data plane since the table was made, it gets the next. Data
// planes that have it ready are told to switch to it, the others are sent it.
func (f *Fleet) Publish(t *Table) *Table {
	f.mu.Lock()
	defer f.mu.Unlock()
	if cur := f.Desired(); cur != nil && cur.Revision >= t.Revision {
		t = t.WithRevision(cur.Revision + 1)
	}
	f.release(t)
	f.aim(newGoal(t))
	return t
}

// OfferAgain sends the desired table once more to the data planes that have
// rejected it, because somebody asks for it: what kept them from it, such as a
// port that was taken, may be gone.
func (f *Fleet) OfferAgain() {
	f.mu.Lock()
	defer f.mu.Unlock()
	goal := f.goal.Load()
	for _, sessions := range f.sessions {
		for _, s := range sessions {
			if s.parked == goal.of(s).Version {
				s.unpark()
				s.poke()
			}
		}
	}
}

// adopt continues the count of a control plane before this one, so that revisions
// never go back: when the data plane reports the desired version under a higher
// revision, that is its revision; when it reports another version under a revision
// that is not lower, the desired version is the change after it. Every stream is
// told of it, so that one stream can cause it only once. f.mu is held.
func (f *Fleet) adopt(s *session) {
	cur := f.Desired()
	if s.lifted || cur == nil || s.version == "" || s.revision > maxAdopted {
		return
	}
	revision := s.revision
	if s.version != cur.Version {
		revision++
	}
	if revision <= cur.Revision {
		return
	}
	s.lifted = true
	f.replace(cur.WithRevision(revision))
	f.opts.Log.Info("revision continued from a data plane", "id", s.id, "revision", revision, "version", cur.Version)
}

// connect registers a session.
func (f *Fleet) connect(s *session) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.sessions) >= maxDataPlanes && f.sessions[s.id] == nil {
		return errFull
	}
	if n := len(f.sessions[s.id]); n >= maxSessions {
		return fmt.Errorf("%w with the id %q: %d are connected; give each its own --id", errFull, s.id, n)
	}
	now := f.opts.Now()
	s.connected, s.since, s.lastContact = true, now, now
	s.traffic = f.traffic.Session(s.id)
	f.seat(s)
	f.sessions[s.id] = append(slices.DeleteFunc(f.sessions[s.id], func(o *session) bool { return !o.connected }), s)
	for _, o := range f.sessions[s.id] {
		f.count(o, o == s) // until it speaks, another is this one's past
		if o != s {
			f.depart(o, "has come back on another stream")
		}
	}
	f.involve(s)
	s.toldLive, s.announcement = f.live, f.announcement // its first heartbeat asks
	f.adopt(s)
	f.keep(s)
	if len(f.drained) > 0 {
		s.ask(false)
	}
	f.opts.Log.Info("data plane connected", "id", s.id, "session", s.sessionID, "address", s.address,
		"version", s.version, "revision", s.revision, "source", sourceName(s.source), "build", s.build)
	s.poke()
	return nil
}

// disconnect notes the end of the session's stream, which was for its turn or not. The
// data plane stays known unless a newer session has taken its place or it said goodbye.
func (f *Fleet) disconnect(s *session, reason string, turn bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.wake = nil
	if !s.connected {
		return // it said goodbye
	}
	s.connected, s.turned = false, turn
	f.depart(s, "has lost its stream: "+reason)
	f.places.vacate(s)
	f.discard(s)
	s.lastContact = f.opts.Now()
	f.count(s, false)
	if s.flight != nil {
		s.flight = nil
		f.metrics.pushes.WithLabelValues(pushFailed).Inc()
	}
	if len(f.sessions[s.id]) > 1 {
		f.remove(s)
	}
	f.opts.Log.Info("data plane disconnected", "id", s.id, "session", s.sessionID, "reason", reason)
}

// remove forgets the session. f.mu is held.
func (f *Fleet) remove(s *session) {
	f.places.leave(s)
	rest := slices.DeleteFunc(f.sessions[s.id], func(o *session) bool { return o == s })
	if len(rest) == 0 {
		delete(f.sessions, s.id)
		return
	}
	f.sessions[s.id] = rest
}

// Sweep forgets the data planes that vanished long ago and logs, once, those
// that have gone silent. It is to be called every few seconds.
func (f *Fleet) Sweep() {
	goal := f.goal.Load()
	for _, s := range f.sweep(goal) {
		f.prune(s, goal.of(s))
	}
	f.traffic.Sweep()
}

// forgetAfter is how long a session that is not connected is remembered.
func (f *Fleet) forgetAfter(s *session) time.Duration {
	if s.turned {
		return min(turnAway, f.opts.ForgetAfter)
	}
	return f.opts.ForgetAfter
}

// sweep does what Sweep has to do with the lock held, and returns the sessions that
// run what they are to run by the goal.
func (f *Fleet) sweep(goal *Goal) (converged []*session) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.opts.Now()
	for _, sessions := range f.sessions {
		for _, s := range slices.Clone(sessions) {
			if !s.connected {
				if now.Sub(s.lastContact) >= f.forgetAfter(s) {
					f.remove(s)
					f.opts.Log.Info("data plane forgotten", "id", s.id)
				}
				continue
			}
			if f.silent(s, now) {
				f.count(s, false)
			}
			state := f.state(s, goal, now)
			if f.settled(s, goal, now) {
				converged = append(converged, s)
			}
			stale := state == stateStale
			if stale && !s.toldStale {
				f.opts.Log.Warn("data plane is stale", "id", s.id, "session", s.sessionID, "error", f.trouble(s, goal, now))
			}
			s.toldStale = stale
		}
	}
	return converged
}

// errOverdue ends a stream whose data plane owes an answer that will not come.
var errOverdue = errors.New("no answer about a route table that was sent long ago")

// handle takes one message of the session after its hello. done means that the
// data plane has said goodbye; an error ends the stream.
func (f *Fleet) handle(s *session, m *routetablev1.SubscribeRequest) (done bool, err error) {
	if err := checkReport(m); err != nil {
		return false, err
	}
	f.observe(s, m.GetHeartbeat().GetBackends())
	s.traffic.Observe(m.GetHeartbeat(), f.opts.Now())
	f.mu.Lock()
	defer f.mu.Unlock()
	s.lastContact = f.opts.Now()
	f.count(s, true)
	if s.place == noPlace {
		f.places.take(s) // a newer session has its place, and it is not the past
	}
	switch m := m.GetMessage().(type) {
	case *routetablev1.SubscribeRequest_Hello:
		return false, errors.New("a second hello on one stream")
	case *routetablev1.SubscribeRequest_Applied:
		f.applied(s, m.Applied.GetVersion(), m.Applied.GetRevision(), routetablev1.Source_SOURCE_STREAM)
	case *routetablev1.SubscribeRequest_Rejected:
		f.rejected(s, m.Rejected)
	case *routetablev1.SubscribeRequest_Prepared:
		f.isReady(s, m.Prepared.GetVersion())
	case *routetablev1.SubscribeRequest_Resend:
		f.resend(s, m.Resend)
	case *routetablev1.SubscribeRequest_Heartbeat:
		err = f.heartbeat(s, m.Heartbeat)
	case *routetablev1.SubscribeRequest_Goodbye:
		s.connected = false
		f.depart(s, "")
		f.count(s, false)
		f.discard(s)
		f.remove(s)
		f.opts.Log.Info("data plane said goodbye", "id", s.id, "session", s.sessionID)
		return true, nil
	}
	s.poke()
	return false, err
}

// applied notes what the data plane serves now, and takes it as the answer
// about the table in flight when it is that one. f.mu is held.
func (f *Fleet) applied(s *session, version string, revision uint64, source routetablev1.Source) {
	if s.version != version {
		s.toldUnder = "" // what it has told about is over
	}
	s.version, s.revision, s.source = version, revision, source
	if s.parked == version {
		s.unpark()
	}
	if s.whole == version {
		s.whole = ""
	}
	f.adopt(s)
	t := s.flight
	if t == nil || t.Version != version {
		return
	}
	s.flight, s.told = nil, t
	f.switched(s, true)
	f.metrics.pushes.WithLabelValues(pushApplied).Inc()
	// A data plane that was not there when the change was accepted has been
	// converging only since it came, and one that had to wait for its step since then.
	start := t.Accepted
	for _, later := range []time.Time{s.since, f.goal.Load().since} {
		if later.After(start) {
			start = later
		}
	}
	f.metrics.convergence.Observe(max(0, f.opts.Now().Sub(start)).Seconds())
	f.opts.Log.Info("data plane applied", "id", s.id, "version", version, "revision", revision)
}

// rejected parks the version in flight. A verdict on another one is no answer to
// anything and changes nothing: not the state, and not the log, which a data
// plane could fill that way. f.mu is held.
func (f *Fleet) rejected(s *session, r *routetablev1.Rejected) {
	if f.cannotPrepare(s, r) {
		return
	}
	if s.flight == nil || s.flight.Version != r.GetVersion() {
		f.opts.Log.Debug("rejection of a version that is not in flight", "id", s.id, "session", s.sessionID)
		return
	}
	s.flight = nil
	f.switched(s, false)
	f.metrics.pushes.WithLabelValues(pushRejected).Inc()
	reasons := describe(r.GetProblems())
	s.parked, s.reasons = r.GetVersion(), reasons
	f.opts.Log.Warn("data plane rejected", "id", s.id, "version", r.GetVersion(), "revision", r.GetRevision(), "error", reasons)
}

// heartbeat takes the periodic truth. f.mu is held.
func (f *Fleet) heartbeat(s *session, h *routetablev1.Heartbeat) error {
	s.requests, s.failures = h.GetRequestsTotal(), h.GetFailuresTotal()
	f.applied(s, h.GetState().GetVersion(), h.GetState().GetRevision(), h.GetState().GetSource())
	f.watched(s, h)
	s.aliveOwed, s.lastBeat = true, f.opts.Now()
	if s.flight != nil && f.opts.Now().Sub(s.flightSince) > overdueFactor*f.opts.ApplyDeadline {
		return fmt.Errorf("%w: version %s", errOverdue, s.flight.Version)
	}
	return nil
}

// step is what a stream has to do next.
type step int

const (
	stepWait      step = iota // nothing, until the session is woken
	stepPlacement             // tell it its place
	stepAlive                 // answer a heartbeat, or tell the number of data planes
	stepReport                // ask for a heartbeat
	stepCurrent               // tell that its table runs there already
	stepTable                 // send its table
	stepHold                  // send the table that is prepared
	stepDiscard               // tell it to drop the table that it has ready
	stepCommit                // tell it to put that in force
)

// next decides what to do for the session, and returns the goal it decided by. What it
// asks for is noted as done by whoever takes the message, except for stepReport and
// stepCurrent, and for a table once there is a slot to send it in.
func (f *Fleet) next(s *session) (step, *Goal) {
	f.mu.Lock()
	defer f.mu.Unlock()
	g := f.goal.Load()
	t := g.of(s)
	switch settled := s.flight != nil || s.parked == t.Version || s.version == t.Version && s.told == t; {
	case s.owesPlacement():
		return stepPlacement, g
	case (settled || s.aliveOwed) && f.owesAlive(s):
		return stepAlive, g
	case s.askOwed:
		s.askOwed = false
		return stepReport, g
	case settled && f.wantsHold(s):
		return stepHold, g
	case settled && f.wantsDrop(s):
		return stepDiscard, g
	case settled:
		return stepWait, g
	case s.ready && s.held.Version == t.Version && s.version != t.Version:
		return stepCommit, g
	case s.version != t.Version:
		return stepTable, g
	}
	s.told = t
	s.unpark()
	return stepCurrent, g
}

// begin puts the table that the session's data plane is to run in flight to it, or
// returns nil when there is none to send any more. With the base, if there is one, it may
// be sent as a delta.
func (f *Fleet) begin(s *session) (t *Table, base *index) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t = f.goal.Load().of(s)
	if !s.connected || s.flight != nil || s.version == t.Version || s.parked == t.Version {
		return nil, nil
	}
	s.flight, s.flightSince = t, f.opts.Now()
	s.unpark()
	f.unhold(s)
	return t, f.baseOf(s, t)
}

// abandon takes back a table of which not everything has been sent.
func (f *Fleet) abandon(s *session) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.flight = nil
	f.metrics.pushes.WithLabelValues(pushAbandoned).Inc()
}

// sourceName returns the word for where a table came from; empty for none, and
// for sources of later releases.
func sourceName(s routetablev1.Source) string {
	switch s {
	case routetablev1.Source_SOURCE_STREAM, routetablev1.Source_SOURCE_DISK:
		return strings.ToLower(strings.TrimPrefix(s.String(), "SOURCE_"))
	default:
		return ""
	}
}
