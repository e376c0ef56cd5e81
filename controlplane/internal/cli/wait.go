package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/grpc"

	"reverseproxy/controlplane/internal/rollout"
	fleetv1 "reverseproxy/proto/fleet/v1"
)

// Short names of the states.
const (
	applied      = fleetv1.DataPlaneState_DATA_PLANE_STATE_APPLIED
	rejected     = fleetv1.DataPlaneState_DATA_PLANE_STATE_REJECTED
	pending      = fleetv1.DataPlaneState_DATA_PLANE_STATE_PENDING
	stale        = fleetv1.DataPlaneState_DATA_PLANE_STATE_STALE
	disconnected = fleetv1.DataPlaneState_DATA_PLANE_STATE_DISCONNECTED
)

// waitInterval is how often a waiting command asks.
const waitInterval = 200 * time.Millisecond

// waitFlags are the flags of the commands that can wait for the fleet.
type waitFlags struct {
	wait    bool
	timeout time.Duration
	// given: the timeout also ends the waiting for a roll-out that makes progress.
	given  bool
	expect int
	// atomic: timeout and expect are for the preparing, too.
	atomic bool
}

func (w *waitFlags) flags(f *pflag.FlagSet) {
	f.BoolVar(&w.wait, "wait", false, "wait until every data plane has applied the version; exit 1 with a row for each that has not")
	f.DurationVar(&w.timeout, "timeout", 30*time.Second, "longest `time` to wait; if it is not given, as long as a roll-out makes progress")
	f.IntVar(&w.expect, "expect", 1, "least `number` of data planes that must be there and have applied it")
}

// check refuses values that make no sense, and flags without --wait.
func (w *waitFlags) check(f *pflag.FlagSet) error {
	with := "--wait"
	if f.Lookup("atomic") != nil {
		with += " or --atomic"
	}
	switch {
	case !w.wait && !w.atomic && (f.Changed("timeout") || f.Changed("expect")):
		return usagef("--timeout and --expect go together with %s", with)
	case w.timeout <= 0:
		return usagef("--timeout must be more than zero")
	case w.expect < 0:
		return usagef("--expect must not be negative")
	}
	w.given = f.Changed("timeout")
	return nil
}

// client is what the commands are given that can wait for the fleet: whom to ask, how to
// wait, and in which form to answer.
type client struct {
	remote
	waitFlags
	output outputFormat
}

// newClient defines the flags of a command but those for waiting, which come last.
func newClient(env *Env, f *pflag.FlagSet) *client {
	c := &client{output: "table"}
	c.remote.flags(env, f)
	f.VarP(&c.output, "output", "o", "for people or for scripts")
	return c
}

// open checks the flags for waiting and prepares the connection, which is to be closed.
func (c *client) open(f *pflag.FlagSet) error {
	if err := c.check(f); err != nil {
		return err
	}
	return c.dial()
}

// change makes a call that changes something and may take so long. before is the status
// before it, nil when it is not to be waited for.
func change[Q, A any](
	ctx context.Context, c *client, most time.Duration, call func(context.Context, *Q, ...grpc.CallOption) (*A, error), request *Q,
) (answer *A, before *fleetv1.StatusResponse, err error) {
	if c.wait {
		if before, err = c.status(ctx, &fleetv1.StatusRequest{}); err != nil {
			return nil, nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	answer, err = call(ctx, request)
	return answer, before, c.explainError(err)
}

// goal is what is waited for.
type goal struct {
	// request is what is asked again and again.
	request *fleetv1.StatusRequest
	// judge decides by a status.
	judge func(*fleetv1.StatusResponse) verdict
	// late says what was still missing at the end.
	late func(*fleetv1.StatusResponse) error
	// whole: a roll-out is waited for until its end.
	whole bool
}

// applied is the goal that every data plane has applied a version, empty for whatever
// is desired.
func (w *waitFlags) applied(version string) goal {
	return goal{
		request: &fleetv1.StatusRequest{},
		judge:   func(s *fleetv1.StatusResponse) verdict { return w.judge(s, version) },
		late:    func(s *fleetv1.StatusResponse) error { return w.timedOut(s, version) },
		whole:   true,
	}
}

// verdict is what a status means for whoever waits.
type verdict struct {
	done bool
	// err is nil when done means success.
	err error
}

// judge decides by a status. version is what is waited for, empty for whatever
// is desired.
func (w *waitFlags) judge(s *fleetv1.StatusResponse, version string) verdict {
	if version == "" && s.GetConfig().GetChanging() {
		return verdict{} // the status is about the content before
	}
	if version == "" && !s.GetConfig().GetOk() {
		return verdict{true, fmt.Errorf("the newest content of %s is not the running configuration: %s",
			s.GetConfig().GetFile(), oneLine(s.GetConfig().GetError()))}
	}
	switch r := s.GetRollout(); {
	case r.GetVersion() == version && rollout.PhaseOf(r) == rollout.Aborted:
		return verdict{true, fmt.Errorf("the roll-out of revision %d was aborted in step %d of %d: %s",
			r.GetRevision(), r.GetStep()+1, len(r.GetSteps()), oneLine(r.GetReason()))}
	case rollingOut(r) && (version == "" || r.GetVersion() == version):
		return verdict{}
	}
	if version != "" && s.GetVersion() != version {
		return verdict{true, fmt.Errorf("version %s was replaced by revision %d (version %s) before all data planes had applied it",
			short(version), s.GetRevision(), short(s.GetVersion()))}
	}
	n := count(s)
	known := len(s.GetDataplanes())
	switch {
	case n[applied] == known && known >= w.expect:
		return verdict{done: true}
	case n[rejected] > 0 && n[applied]+n[rejected] == known:
		return verdict{true, fmt.Errorf("%s rejected version %s", outOf(n[rejected], known), short(s.GetVersion()))}
	}
	return verdict{}
}

// outOf says which part of the data planes.
func outOf(n, known int) string { return fmt.Sprintf("%d of %s", n, plural(known, "data plane")) }

// count returns the number of data planes in each state.
func count(s *fleetv1.StatusResponse) map[fleetv1.DataPlaneState]int {
	n := map[fleetv1.DataPlaneState]int{}
	for _, d := range s.GetDataplanes() {
		n[d.GetState()]++
	}
	return n
}

// run asks until the goal is reached, cannot be any more, or the time is over,
// and returns the last status with the outcome. The status is nil when there
// was no answer at all. A control plane that cannot be reached is waited for: it
// may be starting.
//
// before is a status from before the change, nil when there is none: data planes
// that were there then, and that the control plane does not know of because it was
// started again, are waited for as well.
func (c *client) run(ctx context.Context, env *Env, g goal, before *fleetv1.StatusResponse) (*fleetv1.StatusResponse, error) {
	var limit context.Context
	var deadline time.Time
	cancel := func() {}
	extend := func() {
		cancel()
		limit, cancel = context.WithTimeout(ctx, c.timeout)
		deadline, _ = limit.Deadline()
	}
	extend()
	defer func() { cancel() }()
	tick := time.NewTicker(waitInterval)
	defer tick.Stop()
	progress := newProgress(env)
	defer progress.clear()
	var missed missing
	missed.observe(before)
	var last *fleetv1.StatusResponse
	var unreachable error // since the last answer
	for {
		s, err := c.status(limit, g.request)
		switch {
		case err == nil:
			last, unreachable = s, nil
			missed.observe(s)
			if v := g.judge(s); v.done {
				return s, v.err
			}
			progress.show(s)
			if g.whole && !c.given && advancing(s.GetRollout()) {
				extend()
			}
		case !errors.Is(err, errUnreachable):
			return last, err
		case time.Until(deadline) > waitInterval || last == nil && unreachable == nil:
			unreachable = err // later ones were only too late for an answer
		}
		select {
		case <-tick.C:
			continue
		case <-limit.Done():
		}
		switch {
		case ctx.Err() != nil:
			return last, errors.New("interrupted")
		case unreachable != nil:
			return last, fmt.Errorf("timed out after %s: %w", c.timeout, unreachable)
		}
		return last, g.late(last)
	}
}

// advancing reports whether a roll-out goes on by itself.
func advancing(r *fleetv1.Rollout) bool { return rollingOut(r) && rollout.PhaseOf(r) != rollout.Paused }

// missing finds the data planes that a control plane which was started again does
// not know yet: the ones from before are known only as they come back.
type missing struct {
	last *fleetv1.StatusResponse
	lost map[string]*fleetv1.DataPlane // by id
}

// observe takes the next status in and adds a row to it for each data plane that
// has not come back.
func (m *missing) observe(s *fleetv1.StatusResponse) {
	if s == nil {
		return
	}
	if m.last != nil && m.last.GetRunId() != s.GetRunId() {
		m.lost = map[string]*fleetv1.DataPlane{}
		for _, d := range m.last.GetDataplanes() {
			m.lost[d.GetId()] = &fleetv1.DataPlane{
				Id: d.GetId(), Address: d.GetAddress(), Labels: d.GetLabels(), Build: d.GetBuild(), State: disconnected,
				Error: "it has not come back since the control plane was started again",
			}
		}
	}
	for _, d := range s.GetDataplanes() {
		delete(m.lost, d.GetId())
	}
	if len(m.lost) > 0 {
		s.Dataplanes = slices.AppendSeq(s.Dataplanes, maps.Values(m.lost))
		slices.SortStableFunc(s.Dataplanes, func(a, b *fleetv1.DataPlane) int { return strings.Compare(a.GetId(), b.GetId()) })
	}
	m.last = s
}

// timedOut says what was still missing at the end.
func (w *waitFlags) timedOut(s *fleetv1.StatusResponse, version string) error {
	if version == "" && s.GetConfig().GetChanging() {
		return fmt.Errorf("timed out after %s: the newest content of %s is still being read", w.timeout, s.GetConfig().GetFile())
	}
	if r := s.GetRollout(); rollingOut(r) {
		return fmt.Errorf("timed out after %s: the roll-out is in step %d of %d, %s: %s",
			w.timeout, r.GetStep()+1, len(r.GetSteps()), rollout.PhaseOf(r), oneLine(r.GetReason()))
	}
	known := len(s.GetDataplanes())
	if known < w.expect {
		return fmt.Errorf("timed out after %s: %d of %d expected data planes are known", w.timeout, known, w.expect)
	}
	return fmt.Errorf("timed out after %s: %s did not apply version %s",
		w.timeout, outOf(known-count(s)[applied], known), short(s.GetVersion()))
}

// failures returns the data planes that have not applied the desired version,
// with a reason each.
func failures(s *fleetv1.StatusResponse, timeout time.Duration) []*fleetv1.DataPlane {
	var list []*fleetv1.DataPlane
	for _, d := range s.GetDataplanes() {
		if d.GetState() == applied {
			continue
		}
		if d.GetError() == "" {
			switch d.GetState() {
			case pending:
				d.Error = fmt.Sprintf("timed out: no answer within %s", timeout)
			case disconnected:
				d.Error = "vanished: it has no connection to the control plane"
			}
		}
		list = append(list, d)
	}
	return list
}

// progress is one line on a terminal that is written over again and again.
type progress struct {
	env   *Env
	on    bool
	shown bool
}

func newProgress(env *Env) *progress {
	_, terminal := terminalWidth(env.Stderr)
	return &progress{env: env, on: terminal}
}

func (p *progress) show(s *fleetv1.StatusResponse) {
	if p.on {
		n := count(s)
		step := ""
		if r := s.GetRollout(); rollingOut(r) {
			step = fmt.Sprintf(" (step %d of %d, %s)", r.GetStep()+1, len(r.GetSteps()), rollout.PhaseOf(r))
		}
		fmt.Fprintf(p.env.Stderr, "\r\x1b[Krevision %d%s: %d applied, %d pending, %d rejected, %d stale, %d disconnected",
			s.GetRevision(), step, n[applied], n[pending], n[rejected], n[stale], n[disconnected])
		p.shown = true
	}
}

func (p *progress) clear() {
	if p.shown {
		fmt.Fprint(p.env.Stderr, "\r\x1b[K")
	}
}
