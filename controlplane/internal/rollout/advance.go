package rollout

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"reverseproxy/controlplane/internal/config"
)

const (
	// reportTime is how long the judgement of a step waits, after its bake, for data
	// planes that were asked for their counters.
	reportTime = 3 * time.Second
	// mostReports and leastReports bound how often they are asked during a bake: they
	// report every 5 s unasked.
	leastReports, mostReports = 5 * time.Second, 250 * time.Millisecond
	// shownIDs is how many data planes a reason names, shownBytes how much of what one
	// has said.
	shownIDs, shownBytes = 3, 300
)

// Progress is what has come of a moment.
type Progress struct {
	// Moved: what Keep returns has changed, and with it perhaps the phase and who is
	// chosen.
	Moved bool
	// Ask: the data planes are to report their counters.
	Ask bool
}

// Advance lets the roll-out see the data planes, all that are known, and go on.
func (r *Rollout) Advance(now time.Time, fleet []DataPlane) Progress {
	if r.Over() {
		return Progress{}
	}
	r.observe(now, fleet)
	reason := r.failed(now, fleet)
	if reason == "" {
		reason = r.judge(false)
	}
	switch {
	case reason != "":
		_ = r.Abort(now, reason) // it is not over
	case r.Phase == Paused:
	case r.settling(now): // a part of the fleet would be taken for all of it
	default:
		r.work(now, fleet)
	}
	p := Progress{Moved: r.moved, Ask: r.wantsReports(now)}
	r.moved = false
	return p
}

// settling reports whether data planes are still to come back to a control plane that was
// just started.
func (r *Rollout) settling(now time.Time) bool {
	return now.Before(r.settle) && (r.before == 0 || r.known < r.before)
}

// work does what is to be done in the step.
func (r *Rollout) work(now time.Time, fleet []DataPlane) {
	if r.choose(now, fleet) {
		r.Phase, r.bakeUntil = Applying, time.Time{}
		return
	}
	switch {
	case r.Target == 0 || !r.allApplied(now, fleet):
	case r.Step > 0 && !r.Grown:
		r.pass(now) // the step before was the same
	case r.Phase == Applying:
		r.Phase, r.bakeUntil = Baking, now.Add(r.Settings.Bake)
		r.asked = time.Time{}
		r.onNew.restart() // both, so that what happens to all is in both
		r.onOld.restart()
		r.note(now, "step %d of %d: %s, watched for %s", r.Step+1, len(r.Settings.Steps), r.run(), r.Settings.Bake)
	case !now.Before(r.bakeUntil):
		r.finish(now, fleet)
	}
}

// run says how many data planes run the change.
func (r *Rollout) run() string {
	if r.applied == 1 {
		return "1 data plane runs it"
	}
	return plural(r.applied, "data plane") + " run it"
}

// observe takes in what the data planes are and have done.
func (r *Rollout) observe(now time.Time, fleet []DataPlane) {
	clear(r.seen)
	r.known, r.applied = 0, 0
	first := len(r.onOld.last)+len(r.onNew.last) == 0
	for _, d := range fleet {
		r.seen[d.ID] = true
		delete(r.expected, d.ID)
		if !d.lost() {
			r.known++
		}
		if !r.Chosen[d.ID] && (d.Version == r.Version || r.Everybody() && !d.lost()) {
			// It would be taken from it, only to get it again later; or it has come while
			// everybody gets it.
			r.Chosen[d.ID] = true
			r.moved = true
		}
		if r.Chosen[d.ID] && d.State == applied {
			r.applied++
		}
		r.watch(d)
	}
	if !r.settling(now) {
		r.Known = r.known
	}
	if first && r.Before.Requests == 0 {
		r.Before = r.onOld.totals()
	}
	r.missed(now, fleet)
}

// watch takes in what a data plane has done.
func (r *Rollout) watch(d DataPlane) {
	switch {
	case d.Counters.Process == 0:
	case d.Counters.Version == r.Version:
		r.onNew.observe(d.ID, d.Counters)
	case d.Counters.Version == r.BaseVersion:
		r.onOld.observe(d.ID, d.Counters)
	}
}

// missed notes who is away that has the change, and forgets those that have left.
func (r *Rollout) missed(now time.Time, fleet []DataPlane) {
	clear(r.late)
	for _, d := range fleet {
		switch {
		case !r.Chosen[d.ID] || !d.lost():
			delete(r.away, d.ID)
		case r.away[d.ID].IsZero():
			r.away[d.ID] = now
		}
		if d.State == stale {
			r.late[d.ID] = true
		}
		delete(r.left, d.ID)
	}
	for id := range r.Chosen {
		switch {
		case r.seen[id]:
		case r.expected[id]:
			r.away[id] = r.settle.Add(-r.opts.Grace)
		case r.left[id].IsZero():
			r.left[id] = now
			delete(r.away, id) // it has come back and said goodbye
		case now.Sub(r.left[id]) >= r.opts.Grace:
			delete(r.Chosen, id)
			delete(r.left, id)
			delete(r.away, id)
			r.note(now, "%s has left the fleet", id)
		}
	}
}

// failed returns why the change is to be taken back for what the chosen data planes are,
// or "".
func (r *Rollout) failed(now time.Time, fleet []DataPlane) string {
	var refused, gone []string
	for _, d := range fleet {
		if r.Chosen[d.ID] && d.State == rejected {
			refused = append(refused, d.ID+": "+cut(d.Error))
		}
	}
	for id := range r.Chosen {
		if r.missing(now, id) {
			gone = append(gone, id)
		}
	}
	limits := r.Settings.AbortOn
	switch {
	case limits.Rejected > 0 && len(refused) >= int(limits.Rejected):
		return fmt.Sprintf("%s rejected it: %s", plural(len(refused), "data plane"), listed(refused, "; "))
	case limits.Disconnected > 0 && len(gone) >= int(limits.Disconnected):
		return fmt.Sprintf("%s that %s it vanished or did not answer: %s", plural(len(gone), "data plane"), has(len(gone)), listed(gone, ", "))
	}
	return ""
}

// cut shortens a text that somebody else has made.
func cut(text string) string {
	if len(text) <= shownBytes {
		return text
	}
	return strings.ToValidUTF8(text[:shownBytes], "") + "…"
}

func has(n int) string {
	if n == 1 {
		return "has"
	}
	return "have"
}

// listed joins the first of some texts.
func listed(texts []string, separator string) string {
	slices.Sort(texts)
	if more := len(texts) - shownIDs; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(texts[:shownIDs], separator), more)
	}
	return strings.Join(texts, separator)
}

// missing reports whether a chosen data plane is given up on: it is late with its
// answer or silent, which the fleet says only after a while, or it is gone for long.
func (r *Rollout) missing(now time.Time, id string) bool {
	since, away := r.away[id]
	return away && (r.late[id] || now.Sub(since) >= r.opts.Grace)
}

// allApplied reports whether all chosen data planes run the change, but for those that
// are given up on and may be.
func (r *Rollout) allApplied(now time.Time, fleet []DataPlane) bool {
	for _, d := range fleet {
		if r.Chosen[d.ID] && d.State != applied && d.State != rejected && !r.missing(now, d.ID) {
			return false
		}
	}
	for id := range r.expected {
		if !r.missing(now, id) {
			return false
		}
	}
	return true
}

// choose fills the step up to its number of data planes and reports whether somebody is
// new in it.
func (r *Rollout) choose(now time.Time, fleet []DataPlane) bool {
	have, others := len(r.expected)+len(r.left), 0
	for i := range fleet {
		switch {
		case r.Chosen[fleet[i].ID]:
			have++
		case !fleet[i].lost():
			others++
		}
	}
	full := r.Target > 0 && r.Target <= have && !r.last()
	if full || others == 0 && r.Target > 0 || r.known == 0 {
		return false // as nearly always
	}
	free := r.free(fleet)
	if r.Target == 0 {
		free = r.begins(now, free)
	} else if r.Step == 0 {
		free, _ = r.canaries(free)
	}
	missing := r.Target - have
	if r.last() {
		missing = len(free)
	}
	if missing <= 0 || len(free) == 0 {
		return false
	}
	slices.SortFunc(free, r.order)
	for _, d := range free[:min(missing, len(free))] {
		r.Chosen[d.ID] = true
	}
	r.Grown, r.moved = true, true
	return true
}

// free returns those that can be chosen.
func (r *Rollout) free(fleet []DataPlane) []DataPlane {
	var list []DataPlane
	for _, d := range fleet {
		if !r.Chosen[d.ID] && !d.lost() {
			list = append(list, d)
		}
	}
	return list
}

// begins fixes how many data planes this step has, and returns those that it may take.
func (r *Rollout) begins(now time.Time, free []DataPlane) []DataPlane {
	step := r.Settings.Steps[r.Step]
	r.Target = step.Of(r.known)
	if r.Step == 0 {
		canaries, found := r.canaries(free)
		switch {
		case found:
			r.Target = min(r.Target, max(1, len(canaries)))
			free = canaries
		case len(r.Settings.Canary) > 0:
			r.note(now, "no connected data plane has the labels of canary (%s); any can be chosen", labels(r.Settings.Canary))
		}
	}
	r.note(now, "step %d of %d: %d of %s", r.Step+1, len(r.Settings.Steps), min(r.Target, r.known), plural(r.known, "data plane"))
	return free
}

// canaries returns those that the labels of canary select, and whether there are such;
// all when there are none.
func (r *Rollout) canaries(from []DataPlane) ([]DataPlane, bool) {
	if len(r.Settings.Canary) == 0 {
		return from, false
	}
	var list []DataPlane
	for _, d := range from {
		if r.canary(d) {
			list = append(list, d)
		}
	}
	if len(list) == 0 {
		return from, false
	}
	return list, true
}

// canary reports whether a data plane has all labels of canary.
func (r *Rollout) canary(d DataPlane) bool {
	for k, v := range r.Settings.Canary {
		if have, ok := d.Labels[k]; !ok || have != v {
			return false
		}
	}
	return len(r.Settings.Canary) > 0
}

// order is that in which data planes are chosen: canaries, then those that run the change
// which this one takes the place of, then by a digest of the id, so that it is the same
// ones each time and not those of one name.
func (r *Rollout) order(a, b DataPlane) int {
	return cmp.Or(
		cmp.Compare(rank(r.canary(a)), rank(r.canary(b))),
		cmp.Compare(rank(r.opts.Preferred[a.ID]), rank(r.opts.Preferred[b.ID])),
		byDigest(a.ID, b.ID),
	)
}

func byDigest(a, b string) int {
	return cmp.Or(cmp.Compare(digest(a), digest(b)), strings.Compare(a, b))
}

func rank(first bool) int {
	if first {
		return 0
	}
	return 1
}

func digest(id string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(id))
	return h.Sum64()
}

// labels lists labels, in words.
func labels(m map[string]string) string {
	var list []string
	for k, v := range m {
		list = append(list, k+"="+v)
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

// begin turns to another step.
func (r *Rollout) begin(step int) {
	if old := r.onOld.sum; old.Requests >= uint64(r.Settings.MinRequests) {
		r.Before = old
	}
	r.onNew.restart()
	r.onOld.restart()
	r.Step, r.Target, r.Grown = step, 0, false
	r.bakeUntil = time.Time{}
	r.enter(Applying, "")
}

// pass goes on after a step that is over.
func (r *Rollout) pass(now time.Time) {
	if !r.last() {
		r.begin(r.Step + 1)
		return
	}
	r.enter(Done, "")
	r.bakeUntil = time.Time{}
	r.note(now, "done: %s", r.run())
}

// finish judges a step at the end of its bake.
func (r *Rollout) finish(now time.Time, fleet []DataPlane) {
	if now.Before(r.bakeUntil.Add(reportTime)) && !r.reported(fleet) {
		return
	}
	if reason := r.judge(true); reason != "" {
		_ = r.Abort(now, reason) // it is not over
		return
	}
	if few := r.tooFew(); few != "" {
		switch r.Settings.OnNoTraffic {
		case config.Pause:
			r.enter(Paused, few+"; resume goes on without a judgement")
			r.Unjudged = true
			r.bakeUntil = time.Time{}
			r.note(now, "paused: %s", few)
			return
		case config.Abort:
			_ = r.Abort(now, few) // it is not over
			return
		}
		r.note(now, "%s; it goes on, as onNoTraffic says", few)
	}
	r.pass(now)
}

// reported reports whether all data planes that are heard of have told what they have
// done until the end of the bake.
func (r *Rollout) reported(fleet []DataPlane) bool {
	return !slices.ContainsFunc(fleet, func(d DataPlane) bool {
		return !d.lost() && d.Counters.Process != 0 && d.Counters.At.Before(r.bakeUntil)
	})
}

// wantsReports says when the data planes are to be asked: at the beginning of a bake,
// every now and then, and at its end.
func (r *Rollout) wantsReports(now time.Time) bool {
	if r.Phase != Baking {
		return false
	}
	often := min(max(r.Settings.Bake/4, mostReports), leastReports)
	over := !now.Before(r.bakeUntil) && r.asked.Before(r.bakeUntil)
	if !over && now.Sub(r.asked) < often {
		return false
	}
	r.asked = now
	return true
}
