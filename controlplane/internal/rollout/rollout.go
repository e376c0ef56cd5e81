package rollout

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"reverseproxy/controlplane/internal/config"
	"reverseproxy/controlplane/internal/traffic"
	fleetv1 "reverseproxy/proto/fleet/v1"
)

// Phase is where a roll-out stands.
type Phase string

// The phases; see the package comment.
const (
	Applying   Phase = "applying"
	Baking     Phase = "baking"
	Paused     Phase = "paused"
	Done       Phase = "done"
	Aborted    Phase = "aborted"
	Superseded Phase = "superseded"
)

// maxEvents is how many are remembered.
const maxEvents = 100

// Plan is what is rolled out, and how.
type Plan struct {
	// Revision and Version are of the change, BaseRevision and BaseVersion of what runs
	// before it.
	Revision, BaseRevision uint64
	Version, BaseVersion   string
	// Text is the digest of the text that the change was made from; Parked is that of
	// one that was taken back before, as long as the file may still have it, or empty.
	Text, Parked string
	// Settings are those of that text.
	Settings config.Rollout
}

// DataPlane is one data plane at a moment.
type DataPlane struct {
	ID     string
	Labels map[string]string
	// Version that it runs.
	Version string
	// State with respect to what it is to run: the change if it is chosen, else the base.
	State fleetv1.DataPlaneState
	// Error is why it has rejected that.
	Error string
	// Counters are the newest; without a Process there are none.
	Counters traffic.Counters
}

// Short names of the states.
const (
	applied      = fleetv1.DataPlaneState_DATA_PLANE_STATE_APPLIED
	pending      = fleetv1.DataPlaneState_DATA_PLANE_STATE_PENDING
	rejected     = fleetv1.DataPlaneState_DATA_PLANE_STATE_REJECTED
	stale        = fleetv1.DataPlaneState_DATA_PLANE_STATE_STALE
	disconnected = fleetv1.DataPlaneState_DATA_PLANE_STATE_DISCONNECTED
)

// lost reports whether it cannot be told anything.
func (d DataPlane) lost() bool { return d.State == disconnected || d.State == stale }

// Event is something that has happened.
type Event struct {
	At   time.Time
	Text string
}

// State is what outlives a restart.
type State struct {
	Plan
	Phase  Phase
	Reason string // why it is paused or aborted
	// Step is the one that is being done, from 0; Target is how many data planes it
	// has, 0 until the first of them are chosen. Grown: it has others than the one
	// before.
	Step, Target int
	Grown        bool
	Chosen       map[string]bool
	// Known is how many data planes were connected.
	Known int
	// Unjudged: it is paused because there were too few requests.
	Unjudged  bool
	StartedAt time.Time
	// Before is what data planes without the change did before this step.
	Before traffic.Counters
	Events []Event
}

// Rollout is a change on its way. It is not for concurrent use.
type Rollout struct {
	// State is for others to read, and not to change.
	State
	opts Options
	// away is since when those that have the change are; left are those of them that are
	// not known any more, and have not vanished: they have said goodbye. late are those
	// that do not answer.
	away, left map[string]time.Time
	late       map[string]bool
	seen       map[string]bool // in the last look
	// settle is until when the data planes may take that a control plane before this one
	// knew; expected are those of them that have the change.
	settle   time.Time
	expected map[string]bool
	// before is how many there were, 0 when that is not known.
	before int

	bakeUntil time.Time // zero while there is no bake
	asked     time.Time // the data planes were asked to report
	onNew     windows
	onOld     windows
	applied   int  // of Chosen, as last seen
	known     int  // of all that are connected, as last seen
	moved     bool // what outlives a restart has changed
}

// returnTime is how long data planes may take to come back to a control plane that was
// started again: they try every 5 s at least.
const returnTime = 10 * time.Second

// Options of a roll-out.
type Options struct {
	// Grace is how long a data plane that has the change may be away.
	Grace time.Duration
	// Preferred are the ids that are chosen before others: of those that run the change
	// whose place this one takes.
	Preferred map[string]bool
	// Started: the control plane was just started, and the data planes are still to
	// come; Known is how many there were, 0 when that is not known.
	Started bool
	Known   int
}

// New returns the roll-out of a plan.
func New(p Plan, o Options, now time.Time) *Rollout {
	r := newRollout(o, now)
	r.State = State{Plan: p, Phase: Applying, Chosen: map[string]bool{}, StartedAt: now}
	r.note(now, "revision %d begins, from revision %d", p.Revision, p.BaseRevision)
	if o.Started {
		r.inherit()
	}
	return r
}

// inherit chooses data planes that are still to come: those that run the change whose
// place this one takes would be told to run the base, if they came before the step.
func (r *Rollout) inherit() {
	r.before = r.opts.Known
	ids := slices.SortedFunc(maps.Keys(r.opts.Preferred), byDigest)
	for _, id := range ids[:min(len(ids), r.Settings.Steps[0].Of(r.opts.Known))] {
		r.Chosen[id] = true
	}
	r.expected = maps.Clone(r.Chosen)
}

func newRollout(o Options, now time.Time) *Rollout {
	r := &Rollout{
		opts: o, away: map[string]time.Time{}, left: map[string]time.Time{}, late: map[string]bool{}, seen: map[string]bool{},
		onNew: newWindows(), onOld: newWindows(),
	}
	if o.Started {
		r.settle = now.Add(max(o.Grace, returnTime))
	}
	return r
}

// Keep returns what Restore makes the roll-out from again.
func (r *Rollout) Keep() ([]byte, error) {
	return json.MarshalIndent(r.State, "", "  ")
}

// Restore returns the roll-out that was kept. A step that was being baked is baked
// anew: what the data planes had done at its beginning is not known any more.
func Restore(data []byte, grace time.Duration, now time.Time) (*Rollout, error) {
	r := newRollout(Options{Grace: grace, Started: true}, now)
	if err := json.Unmarshal(data, &r.State); err != nil {
		return nil, err
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	if r.Chosen == nil {
		r.Chosen = map[string]bool{}
	}
	r.expected, r.before = maps.Clone(r.Chosen), r.Known
	if !r.Over() {
		r.note(now, "the control plane was started again")
	}
	if r.Phase == Baking {
		r.Phase = Applying
	}
	return r, nil
}

// check returns what is wrong with a state that was read.
func (s *State) check() error {
	steps := s.Settings.Steps
	switch {
	case !slices.Contains([]Phase{Applying, Baking, Paused, Done, Aborted, Superseded}, s.Phase):
		return fmt.Errorf("there is no phase %q", s.Phase)
	case len(steps) == 0 || steps[len(steps)-1] != config.Everybody:
		return errors.New("the last step is not everybody")
	case s.Step < 0 || s.Step >= len(steps):
		return fmt.Errorf("there is no step %d", s.Step)
	case s.Version == "" || s.BaseVersion == "":
		return errors.New("a version is missing")
	}
	return nil
}

// Over reports whether it is done, aborted or superseded.
func (r *Rollout) Over() bool {
	return r.Phase == Done || r.Phase == Aborted || r.Phase == Superseded
}

// Everybody reports whether all data planes are to run the change, also those that are
// not known yet.
func (r *Rollout) Everybody() bool {
	return r.Phase == Done || r.last() && r.Target > 0 && r.Phase != Aborted && r.Phase != Superseded
}

// last reports whether this is the last step.
func (r *Rollout) last() bool { return r.Step == len(r.Settings.Steps)-1 }

// Renumber notes that the tables have got other versions and revisions, because
// something beside the text has changed in both.
func (r *Rollout) Renumber(revision, baseRevision uint64, version, baseVersion string) {
	r.Revision, r.BaseRevision, r.Version, r.BaseVersion = revision, baseRevision, version, baseVersion
}

// Retext notes another text that means the same.
func (r *Rollout) Retext(digest string) { r.Text = digest }

// TakenBack returns the digest of the text that was taken back, empty when there is none.
func (r *Rollout) TakenBack() string {
	if r.Phase == Aborted {
		return r.Text
	}
	return r.Parked
}

// Unpark forgets the text that was taken back, and reports whether there was one.
func (r *Rollout) Unpark() bool {
	if r.TakenBack() == "" {
		return false
	}
	if r.Phase == Aborted {
		r.Text = ""
	}
	r.Parked = ""
	return true
}

// note remembers something that has happened.
func (r *Rollout) note(now time.Time, format string, args ...any) {
	if len(r.Events) == maxEvents {
		r.Events = slices.Delete(r.Events, 0, 1)
	}
	r.Events = append(r.Events, Event{now, fmt.Sprintf(format, args...)})
	r.moved = true
}

// enter changes the phase.
func (r *Rollout) enter(p Phase, reason string) {
	r.Phase, r.Reason, r.Unjudged = p, reason, false
	r.moved = true
}

var (
	errOver      = errors.New("there is no roll-out going on")
	errPaused    = errors.New("the roll-out is paused already")
	errNotPaused = errors.New("the roll-out is not paused")
	errLast      = errors.New("the roll-out is at its last step already")
)

// Pause keeps the roll-out at its step. It is still aborted when it fails.
func (r *Rollout) Pause(now time.Time, why string) error {
	switch r.Phase {
	case Done, Aborted, Superseded:
		return errOver
	case Paused:
		return errPaused
	}
	r.enter(Paused, strings.TrimLeft(why, ": "))
	r.bakeUntil = time.Time{}
	r.note(now, "paused%s", why)
	return nil
}

// Resume goes on with a paused roll-out: with the next step when it was paused for want
// of requests, else with a new bake of the same one.
func (r *Rollout) Resume(now time.Time, why string) error {
	switch r.Phase {
	case Done, Aborted, Superseded:
		return errOver
	case Paused:
	default:
		return errNotPaused
	}
	unjudged := r.Unjudged
	r.enter(Applying, "")
	r.note(now, "resumed%s", why)
	if unjudged {
		r.pass(now)
	}
	return nil
}

// Promote gives the change to every data plane at once, and watches that step.
func (r *Rollout) Promote(now time.Time, why string) error {
	switch {
	case r.Over():
		return errOver
	case r.last():
		return errLast
	}
	r.note(now, "promoted to everybody%s", why)
	r.begin(len(r.Settings.Steps) - 1)
	return nil
}

// Abort takes the change back.
func (r *Rollout) Abort(now time.Time, reason string) error {
	if r.Over() {
		return errOver
	}
	r.enter(Aborted, reason)
	r.bakeUntil = time.Time{}
	r.note(now, "aborted in step %d of %d: %s", r.Step+1, len(r.Settings.Steps), reason)
	return nil
}

// Supersede ends the roll-out because another change takes its place.
func (r *Rollout) Supersede(now time.Time, by string) {
	if r.Over() {
		return
	}
	r.enter(Superseded, by)
	r.bakeUntil = time.Time{}
	r.note(now, "%s", by)
}

// Outcome says in words how it has ended; empty while it goes on.
func (r *Rollout) Outcome() string {
	switch r.Phase {
	case Done:
		return "rolled out in " + plural(len(r.Settings.Steps), "step")
	case Aborted:
		return fmt.Sprintf("aborted in step %d of %d: %s", r.Step+1, len(r.Settings.Steps), r.Reason)
	case Superseded:
		return r.Reason
	default:
		return ""
	}
}

// plural counts things, in words.
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
