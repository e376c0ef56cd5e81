package reconcile

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"reverseproxy/controlplane/internal/compile"
	"reverseproxy/controlplane/internal/config"
	"reverseproxy/controlplane/internal/fleet"
	"reverseproxy/controlplane/internal/history"
	"reverseproxy/controlplane/internal/rollout"
	"reverseproxy/controlplane/internal/source"
	fleetv1 "reverseproxy/proto/fleet/v1"
	"reverseproxy/proto/routetable"
)

// RolloutFileName is the name of the file in --state-dir that keeps the roll-out.
const RolloutFileName = "rollout.json"

// A roll-out sees the data planes every rolloutInterval, but not before rolloutRest times
// what that has taken.
const (
	rolloutInterval = 200 * time.Millisecond
	rolloutRest     = 20
)

// base is what runs beside a change that is rolled out, and instead of it when that is
// taken back.
type base struct {
	change
	table *fleet.Table
}

// stage is a change that goes through the fleet in steps.
type stage struct {
	rollout *rollout.Rollout
	base    *base
}

// ReadRollout returns the roll-out of the last run, nil when there was none. A damaged
// file is an error: without it, a change that has reached a few data planes, or was
// taken back, would be given to all.
func ReadRollout(path string, grace time.Duration, now time.Time) (*rollout.Rollout, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r, err := rollout.Restore(data, grace, now)
	if err != nil {
		return nil, fmt.Errorf("%s, which keeps the roll-out, is damaged: %w; "+
			"remove it to give the file's content to every data plane", path, err)
	}
	return r, nil
}

// LostBaseError says that a roll-out cannot go on, because what it began from is gone.
type LostBaseError struct {
	path     string
	revision uint64
	err      error
}

// Error says what is missing and what to do.
func (e *LostBaseError) Error() string {
	return fmt.Sprintf("a roll-out is going on, and revision %d, which it can return to, is not in the history: %v; "+
		"the data planes stay as they are; remove %s to give the file's content to all of them", e.revision, e.err, e.path)
}

// Unwrap returns the error of the history.
func (e *LostBaseError) Unwrap() error { return e.err }

// digest of a text, as a roll-out keeps it.
func digest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// going reports whether a roll-out is going on. The turn is held.
func (l *Loader) going() bool { return l.rollout != nil && !l.rollout.Over() }

// parked reports whether a text was taken back, and may not be tried again by itself.
// The turn is held.
func (l *Loader) parked(text []byte) bool {
	return l.rollout != nil && l.rollout.TakenBack() == digest(text)
}

// parkedError is why the file's content is not the running configuration, although it
// was for some data planes.
type parkedError struct{ text string }

// Error says what has happened and what to do.
func (e *parkedError) Error() string { return e.text }

func (l *Loader) errParked() error {
	if l.rollout.Phase != rollout.Aborted {
		return &parkedError{l.file.Path() + ": this content was taken back; it is parked until it changes, or is applied again"}
	}
	return &parkedError{fmt.Sprintf("%s: revision %d was %s; this content is parked until it changes, or is applied again",
		l.file.Path(), l.rollout.Revision, l.rollout.Outcome())}
}

// unpark lets a text be tried again that was taken back: the file has had another one
// since.
func (l *Loader) unpark() {
	if l.rollout != nil && l.rollout.Unpark() {
		l.logKept(l.keepRollout(l.rollout))
	}
}

// startParked begins a run with what was there before the file's content, which the
// last run has taken back.
func (l *Loader) startParked() error {
	newest, r := l.opts.History.Newest(), l.rollout
	revision, origin := newest.Revision, newest.Origin
	if !l.follows(newest) {
		revision, origin = r.BaseRevision, fleetv1.Origin_ORIGIN_ABORT // the last run did not get to it
	}
	c, err := l.earlier(revision)
	if err != nil {
		return &LostBaseError{l.opts.RolloutFile, revision, err}
	}
	c.origin, c.restores, c.message = origin, r.BaseRevision, r.Reason
	t, _, err := l.accept(c)
	if err != nil {
		return err
	}
	l.last.Store(&outcome{accepted: t.Accepted})
	l.failed(l.errParked())
	return nil
}

// earlier returns a revision of the history as a change.
func (l *Loader) earlier(revision uint64) (change, error) {
	text, err := l.opts.History.Text(revision)
	if err != nil {
		return change{}, err
	}
	return l.check(fmt.Sprintf("revision %d", revision), text, true)
}

// stage returns in which steps a change that has a table goes through the fleet, nil
// when every data plane gets it at once: that is what its settings say, or who applies it, or it is no
// change by a file, or nothing runs that it could be compared with.
func (l *Loader) stage(c change, t *fleet.Table) (*stage, error) {
	if c.prepare != nil || c.origin != fleetv1.Origin_ORIGIN_FILE && c.origin != fleetv1.Origin_ORIGIN_APPLY {
		return nil, nil
	}
	first := l.fleet.Desired() == nil
	continues := first && l.continues(c, t)
	if c.rollout.AtOnce() && !continues {
		return nil, nil
	}
	b, err := l.baseOf(c, t)
	if err != nil || b == nil || b.table.Version == t.Version {
		return nil, err
	}
	if continues {
		l.rollout.Retext(digest(c.data))
		l.rollout.Renumber(t.Revision, b.table.Revision, t.Version, b.table.Version)
		return &stage{l.rollout, b}, nil
	}
	o := rollout.Options{Grace: l.opts.Grace, Started: first}
	if l.going() {
		o.Preferred, o.Known = l.rollout.Chosen, l.rollout.Known
	}
	plan := rollout.Plan{
		Revision: t.Revision, BaseRevision: b.table.Revision, Version: t.Version, BaseVersion: b.table.Version,
		Text: digest(c.data), Settings: c.rollout,
	}
	if l.rollout != nil {
		plan.Parked = l.rollout.TakenBack() // the file has it until the change is settled
	}
	r := rollout.New(plan, o, l.opts.Now())
	r.Advance(l.opts.Now(), l.planes(r.Version)) // who runs the one before goes to this one directly
	return &stage{r, b}, nil
}

// continues reports whether a change is the one whose roll-out is going on: its text may
// have been edited since, and its table be another for drained backends.
func (l *Loader) continues(c change, t *fleet.Table) bool {
	return l.going() && (l.rollout.Text == digest(c.data) || l.rollout.Version == t.Version)
}

// follows reports whether an entry came after the change of the roll-out, and is not that
// one under another number.
func (l *Loader) follows(e history.Entry) bool {
	return e.Revision > l.rollout.Revision && !slices.Contains(e.Formerly, l.rollout.Revision)
}

// tookBack reports whether an entry is that of the roll-out's abort: it comes after the
// change, and one that began later would have taken the roll-out's place in its file.
func (l *Loader) tookBack(e history.Entry) bool {
	return e.Origin == fleetv1.Origin_ORIGIN_ABORT && l.follows(e)
}

// resumeAbort ends a roll-out that the last run has taken back, which only the history
// says: its file could not be written.
func (l *Loader) resumeAbort() {
	if !l.going() {
		return
	}
	entries := l.opts.History.List()
	if i := slices.IndexFunc(entries, l.tookBack); i >= 0 {
		if text, err := l.opts.History.Text(l.rollout.Revision); err == nil {
			l.rollout.Retext(digest(text)) // it may have been edited since
		}
		_ = l.rollout.Abort(l.opts.Now(), entries[i].Message) // it is not over
		l.logKept(l.keepRollout(l.rollout))
	}
}

// baseOf returns what runs now, or ran before the change that is rolled out now; nil
// when nothing does, or nothing else than the table. An entry of a drain may be that of
// the roll-out's change once more.
func (l *Loader) baseOf(c change, t *fleet.Table) (*base, error) {
	switch cur := l.fleet.Desired(); {
	case l.base != nil:
		return l.base, nil
	case cur != nil:
		text, err := l.text()
		return &base{change{data: text, content: l.content}, cur}, err
	}
	newest := l.opts.History.Newest()
	revision := newest.Revision
	switch accepted := newest.Version == t.Version; {
	case l.going() && !(accepted && l.follows(newest)),
		l.continues(c, t) && newest.Origin == fleetv1.Origin_ORIGIN_DRAIN,
		l.rollout != nil && l.rollout.Phase == rollout.Aborted && !l.follows(newest):
		revision = l.rollout.BaseRevision
	case newest.Revision == 0, accepted:
		return nil, nil
	}
	before, err := l.earlier(revision)
	if err == nil {
		var table *fleet.Table
		if table, err = l.table(before, l.drained, revision); err == nil {
			return &base{before, table}, nil
		}
	}
	if l.going() {
		return nil, &LostBaseError{l.opts.RolloutFile, revision, err}
	}
	l.opts.Log.Warn("every data plane gets the file's content at once: what ran before it is not known",
		"revision", revision, "error", err)
	return nil, nil
}

// table returns the table of a change, without the drained backends.
func (l *Loader) table(c change, drained map[string]bool, revision uint64) (*fleet.Table, error) {
	effective := compile.Drain(c.content, drained)
	return fleet.NewTable(effective, routetable.Version(effective), revision, l.opts.Now())
}

// retext notes that the file has another text of the change that is rolled out.
func (l *Loader) retext(c change) {
	if l.going() && c.origin != fleetv1.Origin_ORIGIN_DRAIN {
		l.rollout.Retext(digest(c.data))
		l.logKept(l.keepRollout(l.rollout))
	}
}

// begin puts the first step of a roll-out in force, which is kept, or goes on with that
// of the last run.
func (l *Loader) begin(s *stage, t *fleet.Table) {
	l.supersede(fmt.Sprintf("superseded by revision %d", t.Revision), s.rollout)
	l.rollout = s.rollout
	l.setBase(s.base)
	l.aim(t, s.base.table)
	l.numbered()
	l.opts.Log.Info("roll-out begins or goes on", "revision", t.Revision, "base", s.base.table.Revision, "step", s.rollout.Step+1)
	if l.opts.RolloutFile == "" {
		l.opts.Log.Warn("without --state-dir, every data plane gets the change when the control plane is started again", "revision", t.Revision)
	}
	l.showRollout()
}

// aim has the fleet run the two tables of the roll-out as that says.
func (l *Loader) aim(t, base *fleet.Table) *fleet.Goal {
	if l.rollout.Everybody() {
		return l.fleet.StageAll(t, base)
	}
	return l.fleet.Stage(t, base, l.rollout.Chosen)
}

// setBase sets what the roll-out can return to, nil when none is going on. It stays in
// the history however many changes take the place of one another.
func (l *Loader) setBase(b *base) {
	l.base = b
	held := uint64(0)
	if b != nil {
		held = b.table.Revision
	}
	l.opts.History.Hold(held)
}

// numbered notes under which revision the change that is rolled out is published: that
// may have been continued from a data plane.
func (l *Loader) numbered() (changed bool) {
	r, t := l.rollout, l.fleet.Desired()
	if r.Revision == t.Revision {
		return false
	}
	r.Renumber(t.Revision, r.BaseRevision, r.Version, r.BaseVersion)
	return true
}

// supersede ends the roll-out that is going on, if there is one, because another change
// takes its place: next, or one for every data plane at once.
func (l *Loader) supersede(why string, next *rollout.Rollout) {
	l.setBase(nil)
	if l.rollout == next || !l.going() {
		return
	}
	r := l.rollout
	r.Supersede(l.opts.Now(), why)
	l.over(r)
	if next == nil {
		l.logKept(l.keepRollout(r))
	}
	l.showRollout()
}

// over notes how a roll-out has ended.
func (l *Loader) over(r *rollout.Rollout) {
	l.rollouts.WithLabelValues(string(r.Phase)).Inc()
	l.opts.Log.Info("roll-out is over", "revision", r.Revision, "outcome", r.Outcome())
	if err := l.opts.History.SetOutcome(r.Revision, r.Outcome()); err != nil {
		l.opts.Log.Error("outcome of a roll-out not kept", "revision", r.Revision, "error", err)
	}
}

// keepRollout writes the file of the roll-out, if there is one.
func (l *Loader) keepRollout(r *rollout.Rollout) error {
	if l.opts.RolloutFile == "" || r == nil {
		return nil
	}
	data, err := r.Keep()
	if err != nil {
		return err
	}
	return source.Replace(l.opts.RolloutFile, append(data, '\n'))
}

// logKept logs that the roll-out could not be kept, once for each reason.
func (l *Loader) logKept(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != l.rolloutError {
		l.opts.Log.Error("roll-out not kept; it is tried again", "error", err)
	}
	l.rolloutError = text
}

// advance lets the roll-out that is going on see the data planes, and tries again to keep
// how one has ended. The turn is held.
func (l *Loader) advance() {
	now := l.opts.Now()
	if now.Before(l.nextAdvance) || !l.going() && l.rolloutError == "" {
		return
	}
	defer func() {
		done := l.opts.Now()
		l.nextAdvance = now.Add(max(rolloutInterval, rolloutRest*done.Sub(now)))
	}()
	if !l.going() {
		l.follow(false)
		return
	}
	l.keep() // the outcome is that of the number that data planes know
	p := l.rollout.Advance(now, l.planes(l.rollout.Version))
	if p.Ask {
		l.fleet.Ask(false)
	}
	l.follow(l.numbered() || p.Moved)
}

// follow does what the roll-out has decided, as soon as that is kept.
func (l *Loader) follow(moved bool) {
	r := l.rollout
	defer l.showRollout()
	if moved || l.rolloutError != "" {
		err := l.keepRollout(r)
		l.logKept(err)
		if err != nil && !r.Over() {
			return // a restart would not know who has it
		}
	}
	switch {
	case l.base == nil:
		return // it was over before
	case r.Phase == rollout.Aborted:
		l.takeBack()
		return
	case r.Phase == rollout.Done:
		l.over(r)
		l.setBase(nil)
	}
	if g := l.fleet.Goal(); g.Base != nil && (r.Everybody() || !maps.Equal(g.Chosen, r.Chosen)) {
		l.fleet.Choose(r.Chosen, r.Everybody())
	}
}

// takeBack returns every data plane to what ran before the roll-out, as a new revision.
func (l *Loader) takeBack() {
	r, b := l.rollout, l.base
	l.over(r)
	l.setBase(nil)
	c := b.change
	c.drained, c.origin, c.restores, c.message = l.drained, fleetv1.Origin_ORIGIN_ABORT, r.BaseRevision, r.Reason
	t, _, err := l.accept(c)
	if err != nil {
		l.opts.Log.Error("roll-out not taken back", "error", err)
		return
	}
	l.last.Store(&outcome{accepted: t.Accepted})
	l.failed(l.errParked())
}

// planes returns the data planes as the roll-out of a version sees them: it counts ids,
// and two processes may have the same, for a moment or by mistake.
func (l *Loader) planes(version string) []rollout.DataPlane {
	rows := l.fleet.DataPlanes() // sorted by id, then by age
	list := make([]rollout.DataPlane, 0, len(rows))
	for _, d := range rows {
		counters, _ := l.fleet.Traffic().Counters(d.GetId())
		p := rollout.DataPlane{
			ID: d.GetId(), Labels: d.GetLabels(), Version: d.GetVersion(), State: d.GetState(), Error: d.GetError(), Counters: counters,
		}
		if n := len(list); n > 0 && list[n-1].ID == p.ID {
			list[n-1] = together(list[n-1], p, version)
			continue
		}
		list = append(list, p)
	}
	return list
}

// progress lists the states of connected data planes, the best first.
var progress = []fleetv1.DataPlaneState{
	fleetv1.DataPlaneState_DATA_PLANE_STATE_APPLIED,
	fleetv1.DataPlaneState_DATA_PLANE_STATE_PENDING,
	fleetv1.DataPlaneState_DATA_PLANE_STATE_STALE,
	fleetv1.DataPlaneState_DATA_PLANE_STATE_REJECTED,
}

// together returns two with one id as one, which stands where the worse of them does. It
// has the version that is rolled out as soon as one has: the fleet gives it to both then.
func together(older, newer rollout.DataPlane, version string) rollout.DataPlane {
	both := newer
	if slices.Index(progress, older.State) > slices.Index(progress, newer.State) {
		both.State, both.Error = older.State, older.Error
	}
	if older.Version == version {
		both.Version = version
	}
	return both
}

// drainStaged makes a set of drained backends the one that counts in both tables of a
// roll-out. Both get new revisions, so that the history has what every data plane runs.
func (l *Loader) drainStaged(c change) (*fleet.Table, bool, error) {
	last := l.fleet.Desired().Revision
	before, err := l.table(l.base.change, c.drained, last+1)
	if err != nil {
		return nil, false, err
	}
	if before.Version == l.base.table.Version {
		before = l.base.table
	}
	t, err := l.table(c, c.drained, last+2)
	if err != nil {
		return nil, false, err
	}
	if before == l.base.table && t.Version == l.fleet.Desired().Version {
		return l.fleet.Desired(), false, l.keepOn(c)
	}
	if err := l.recordStaged(c, t, before); err != nil {
		return nil, false, err
	}
	l.setBase(&base{l.base.change, before})
	r := l.rollout
	r.Renumber(t.Revision, before.Revision, t.Version, before.Version)
	l.logKept(l.keepRollout(r))
	goal := l.aim(t, before)
	l.took(c)
	l.showRollout()
	return goal.Table, true, nil
}

// recordStaged makes a change of the drained backends durable for both tables of a
// roll-out, or for none. The base has an entry of its own when it gets another table: what
// a roll-out can return to has to be in the history.
func (l *Loader) recordStaged(c change, t, before *fleet.Table) error {
	if before == l.base.table {
		return l.record(c, t)
	}
	ofBase := c
	ofBase.data, ofBase.content = l.base.data, l.base.content
	draft, err := l.opts.History.Prepare(ofBase.entry(before), ofBase.data)
	if err != nil {
		return err
	}
	settle := c.settle
	c.settle = func() error {
		if err := settle(); err != nil {
			return err
		}
		if err := draft.Commit(); err != nil {
			return errors.Join(err, l.unsettle())
		}
		return nil
	}
	if err := l.record(c, t); err != nil {
		draft.Discard()
		return err
	}
	return nil
}

// unsettle has a restart find the drained backends as they are.
func (l *Loader) unsettle() error {
	if err := l.keepDrains(l.drained); err != nil {
		return fmt.Errorf("nothing has changed, but it would when the control plane is started again: %w", err)
	}
	return nil
}

// Steer pauses, resumes, promotes or aborts the roll-out that is going on, which is that
// of a revision unless it is 0. A *SteerError changes nothing.
func (l *Loader) Steer(ctx context.Context, r *fleetv1.SteerRolloutRequest) (*fleetv1.Rollout, error) {
	if err := l.take(ctx); err != nil {
		return nil, err
	}
	defer l.free()
	if !l.going() {
		return nil, &SteerError{"there is no roll-out going on"}
	}
	if want := r.GetRevision(); want != 0 && want != l.rollout.Revision {
		return nil, &SteerError{fmt.Sprintf("the roll-out that is going on is that of revision %d, not of %d", l.rollout.Revision, want)}
	}
	if err := steer(l.rollout, r, l.opts.Now()); err != nil {
		return nil, &SteerError{err.Error()}
	}
	l.follow(true)
	return l.shown.Load(), l.steered()
}

// steered returns why what was asked for would be forgotten by a restart, nil when it
// would not: an abort is in the history too.
func (l *Loader) steered() error {
	switch {
	case l.rolloutError == "":
		return nil
	case l.rollout.Phase != rollout.Aborted:
		return fmt.Errorf("the roll-out could not be kept: %s", l.rolloutError)
	case slices.ContainsFunc(l.opts.History.List(), l.tookBack):
		return nil
	}
	return fmt.Errorf("the roll-out is aborted, but that could be written neither to its file nor to the history, which is tried again: "+
		"until then it would go on if the control plane were started again: %s", l.rolloutError)
}

// SteerError is why a roll-out cannot be told to do something.
type SteerError struct{ reason string }

// Error returns the reason.
func (e *SteerError) Error() string { return e.reason }

// steer does what is asked for.
func steer(r *rollout.Rollout, request *fleetv1.SteerRolloutRequest, now time.Time) error {
	why := ""
	if author := request.GetAuthor(); author != "" {
		why = " by " + author
	}
	if reason := request.GetReason(); reason != "" {
		why += ": " + reason
	}
	switch request.GetAction() {
	case fleetv1.RolloutAction_ROLLOUT_ACTION_PAUSE:
		return r.Pause(now, why)
	case fleetv1.RolloutAction_ROLLOUT_ACTION_RESUME:
		return r.Resume(now, why)
	case fleetv1.RolloutAction_ROLLOUT_ACTION_PROMOTE:
		return r.Promote(now, why)
	case fleetv1.RolloutAction_ROLLOUT_ACTION_ABORT:
		return r.Abort(now, "asked for"+why)
	default:
		return errors.New("it is not known what to do")
	}
}

// RollingOut reports whether a table is on its way in steps.
func (l *Loader) RollingOut(t *fleet.Table) bool {
	r := l.shown.Load()
	return active(r) && r.GetVersion() == t.Version
}

// Rollout describes the roll-out that is going on, or else the last one; nil: there has
// been none.
func (l *Loader) Rollout() *fleetv1.Rollout { return l.shown.Load() }

// showRollout describes the roll-out for those who do not have the turn.
func (l *Loader) showRollout() {
	if l.rollout != nil {
		l.shown.Store(l.rollout.Describe())
	}
}

// StepsError is what is wrong with the steps of an apply.
type StepsError struct{ err error }

// Error returns what is wrong.
func (e *StepsError) Error() string { return "steps: " + e.err.Error() }

// stepsOf puts the steps of an apply, if it has any, in the place of those of the text.
func stepsOf(texts []string, r config.Rollout) (config.Rollout, error) {
	if len(texts) == 0 {
		return r, nil
	}
	steps, err := config.ParseSteps(texts)
	r.Steps = steps
	return r, err
}

// shownRollout returns the roll-out as far as it belongs to the status: one that is
// going on, or that was aborted while the file still has its content.
func (l *Loader) shownRollout(last *outcome) *fleetv1.Rollout {
	r := l.shown.Load()
	if active(r) || last.parked {
		return r
	}
	return nil
}

// active reports whether a roll-out is going on.
func active(r *fleetv1.Rollout) bool {
	switch r.GetPhase() {
	case fleetv1.RolloutPhase_ROLLOUT_PHASE_APPLYING, fleetv1.RolloutPhase_ROLLOUT_PHASE_BAKING, fleetv1.RolloutPhase_ROLLOUT_PHASE_PAUSED:
		return true
	default:
		return false
	}
}

var (
	phaseDesc = prometheus.NewDesc("controlplane_rollout_phase",
		"Whether the roll-out that is going on is in the phase; 0 for all when there is none.", []string{"phase"}, nil)
	stepDesc = prometheus.NewDesc("controlplane_rollout_step",
		"Step of the roll-out that is going on, from 1; 0 when there is none.", nil, nil)
	stepsDesc = prometheus.NewDesc("controlplane_rollout_steps",
		"Steps of the roll-out that is going on; 0 when there is none.", nil, nil)
	chosenDesc = prometheus.NewDesc("controlplane_rollout_chosen_dataplanes",
		"Data planes that are to run what is rolled out; 0 when nothing is.", nil, nil)
)

// collectRollout tells the metrics of the roll-out that is going on.
func collectRollout(r *fleetv1.Rollout, ch chan<- prometheus.Metric) {
	phase, step, steps, chosen := rollout.Phase(""), 0, 0, 0
	if active(r) {
		phase, step, steps, chosen = rollout.PhaseOf(r), int(r.GetStep())+1, len(r.GetSteps()), len(r.GetChosen())
	}
	for _, p := range []rollout.Phase{rollout.Applying, rollout.Baking, rollout.Paused} {
		is := 0.0
		if p == phase {
			is = 1
		}
		ch <- prometheus.MustNewConstMetric(phaseDesc, prometheus.GaugeValue, is, string(p))
	}
	ch <- prometheus.MustNewConstMetric(stepDesc, prometheus.GaugeValue, float64(step))
	ch <- prometheus.MustNewConstMetric(stepsDesc, prometheus.GaugeValue, float64(steps))
	ch <- prometheus.MustNewConstMetric(chosenDesc, prometheus.GaugeValue, float64(chosen))
}
