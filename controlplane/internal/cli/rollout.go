package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"reverseproxy/controlplane/internal/rollout"
	"reverseproxy/controlplane/internal/status"
	fleetv1 "reverseproxy/proto/fleet/v1"
)

var rolloutCommand = &command{
	name:    "rollout",
	args:    "status|pause|resume|promote|abort",
	summary: "Show the roll-out that is going on, or the last one, and steer it",
	more: `
  status   which step it is at, what it waits for, how the data planes with the change do
  pause    stay at this step; it is still aborted when it fails
  resume   go on: with a new bake of the step, or with the next one when there were too
           few requests to judge it
  promote  give the change to every data plane at once, and watch that
  abort    return every data plane to what ran before

Examples:
  controlplane rollout status --watch
  controlplane rollout abort --reason 'checkout is slow'

The steps are those of rollout in the file, or of apply --steps.`,
	setUp: setUpRollout,
}

// rolloutActions are what can be done to a roll-out.
var rolloutActions = map[string]fleetv1.RolloutAction{
	"pause":   fleetv1.RolloutAction_ROLLOUT_ACTION_PAUSE,
	"resume":  fleetv1.RolloutAction_ROLLOUT_ACTION_RESUME,
	"promote": fleetv1.RolloutAction_ROLLOUT_ACTION_PROMOTE,
	"abort":   fleetv1.RolloutAction_ROLLOUT_ACTION_ABORT,
}

func setUpRollout(env *Env, flags *pflag.FlagSet) func(context.Context, []string) error {
	var r remote
	output := outputFormat("table")
	r.flags(env, flags)
	flags.VarP(&output, "output", "o", "for people or for scripts")
	watch := flags.Bool("watch", false, "with status: show it again every second until it is over")
	reason := flags.String("reason", "", "why, for the record: a `text`")
	revision := flags.Uint64("revision", 0, "do it only if the roll-out is that of this revision `number`")
	return func(ctx context.Context, args []string) error {
		if len(args) != 1 {
			return usagef("what is expected is one of status, pause, resume, promote, abort")
		}
		action, steers := rolloutActions[args[0]]
		switch {
		case !steers && args[0] != "status":
			return usagef("rollout has no %q; there are status, pause, resume, promote, abort", args[0])
		case steers && *watch:
			return usagef("--watch goes with rollout status only")
		case !steers && (flags.Changed("reason") || flags.Changed("revision")):
			return usagef("--reason and --revision do not go with rollout status")
		}
		if err := r.dial(); err != nil {
			return err
		}
		defer r.close()
		switch {
		case *watch:
			return watchRollout(ctx, env, &r, output)
		case steers:
			request := &fleetv1.SteerRolloutRequest{Action: action, Revision: *revision, Reason: *reason, Author: env.Author}
			return steerRollout(ctx, env, &r, output, request)
		}
		a, err := r.rollout(ctx)
		if err == nil {
			printRollout(env, a, output)
		}
		return err
	}
}

// rollout asks for the roll-out.
func (r *remote) rollout(ctx context.Context) (*fleetv1.Rollout, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	a, err := r.fleet.Rollout(ctx, &fleetv1.RolloutRequest{})
	return a.GetRollout(), r.explainError(err)
}

func steerRollout(ctx context.Context, env *Env, r *remote, output outputFormat, request *fleetv1.SteerRolloutRequest) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	a, err := r.fleet.SteerRollout(ctx, request)
	if err != nil {
		return r.explainError(err)
	}
	if output == "json" {
		printRollout(env, a.GetRollout(), output)
		return nil
	}
	events := a.GetRollout().GetEvents()
	fmt.Fprintf(env.Stdout, "revision %d: %s\n", a.GetRollout().GetRevision(), events[len(events)-1].GetText())
	return nil
}

// watchRollout shows the roll-out until it is over.
func watchRollout(ctx context.Context, env *Env, r *remote, output outputFormat) error {
	return watch(ctx, env, output, r.rollout, func(a *fleetv1.Rollout) (over bool) {
		printRollout(env, a, output)
		return !rollingOut(a)
	})
}

// rollingOut reports whether a roll-out is going on.
func rollingOut(r *fleetv1.Rollout) bool {
	switch rollout.PhaseOf(r) {
	case rollout.Applying, rollout.Baking, rollout.Paused:
		return true
	default:
		return false
	}
}

// shownEvents is how many are shown to people.
const shownEvents = 20

// printRollout prints the roll-out.
func printRollout(env *Env, r *fleetv1.Rollout, output outputFormat) {
	if output == "json" {
		_, _ = env.Stdout.Write(status.RolloutFrom(r).JSON())
		return
	}
	p := newPage(env)
	if r == nil {
		p.printf("There has been no roll-out.\n")
		return
	}
	p.printf("revision %d, version %s, from revision %d: %s\n", r.GetRevision(), short(r.GetVersion()), r.GetBaseRevision(), describeRollout(p, r))
	p.printf("steps %s; %d of %s run it\n\n", strings.Join(r.GetSteps(), ", "), r.GetApplied(), plural(int(r.GetDataPlanes()), "data plane"))
	p.table([]string{"VERSION", "DATA PLANES", "REQUESTS", "SERVER ERRORS", "GATEWAY ERRORS", "P99", ""}, [][]cell{
		windowRow("new", r.GetOnNew()), windowRow("old", r.GetOnOld()),
	})
	p.printf("\n")
	events := r.GetEvents()
	for _, e := range events[max(0, len(events)-shownEvents):] {
		p.printf("%s  %s\n", p.paint(faint, e.GetAt().AsTime().Local().Format(time.TimeOnly)), oneLine(e.GetText()))
	}
}

// describeRollout says where a roll-out stands, and why.
func describeRollout(p *page, r *fleetv1.Rollout) string {
	phase := rollout.PhaseOf(r)
	text := string(phase)
	if rollingOut(r) {
		text = fmt.Sprintf("step %d of %d, %s", r.GetStep()+1, len(r.GetSteps()), phase)
	}
	if until := r.GetBakeUntil(); until != nil {
		text += fmt.Sprintf(", %s left", max(0, time.Until(until.AsTime())).Round(time.Second))
	}
	if r.GetReason() != "" {
		text += ": " + oneLine(r.GetReason())
	}
	return p.paint(phaseColor(phase), text)
}

func phaseColor(phase rollout.Phase) string {
	switch phase {
	case rollout.Aborted:
		return red
	case rollout.Done:
		return green
	default:
		return yellow
	}
}

func windowRow(name string, w *fleetv1.Window) []cell {
	p99 := "-"
	if w.GetP99Seconds() > 0 {
		p99 = time.Duration(w.GetP99Seconds() * float64(time.Second)).Round(100 * time.Microsecond).String()
	}
	return []cell{
		{text: name}, {text: fmt.Sprint(w.GetDataPlanes())}, {text: fmt.Sprint(w.GetRequests())},
		{text: part(w.GetServerErrors(), w.GetRequests())}, {text: part(w.GetGatewayErrors(), w.GetRequests())}, {text: p99}, {},
	}
}

// part is a number and how much that is of all.
func part(n, all uint64) string {
	if all == 0 {
		return "-"
	}
	return fmt.Sprintf("%d (%.2f%%)", n, 100*float64(n)/float64(all))
}
