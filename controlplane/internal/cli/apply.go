package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/durationpb"

	"reverseproxy/controlplane/internal/config"
	"reverseproxy/controlplane/internal/status"
	fleetv1 "reverseproxy/proto/fleet/v1"
)

var applyCommand = &command{
	name:    "apply",
	args:    "CONFIG",
	summary: "Make CONFIG the running configuration: check, plan, write to the watched file, push",
	more: `
CONFIG may be - for standard input. It replaces the content of the file that the
control plane watches; an edit of that file at the same moment is overwritten, or
overwrites: the last writer wins. A CONFIG with any problem changes nothing.

The plan is printed first, see controlplane plan --help. When standard input and output
are a terminal it is applied only after a y; --yes asks nothing. With -o json there is no
plan.

With --atomic, every data plane that is known fetches, verifies and compiles CONFIG first,
and only when all are ready does any change: then all do, within milliseconds, and there
is no roll-out. When one rejects it, is not connected, is of an earlier release, or takes
longer than --timeout, nothing changes anywhere, there is a row for each, and the exit
status is 1. Nor does anything when another change is accepted before all are ready.

With --wait, a roll-out in steps is waited for as long as it makes progress, unless
there is a --timeout; exit status 1 when it was aborted.`,
	setUp: setUpApply,
}

func setUpApply(env *Env, flags *pflag.FlagSet) func(context.Context, []string) error {
	c := newClient(env, flags)
	force := flags.Bool("force", false, "accept that most endpoints, or all, are dropped")
	yes := flags.BoolP("yes", "y", false, "apply without asking, also on a terminal")
	steps := flags.StringSlice("steps", nil, "roll it out in these `steps`, such as 1,25%,100%, and not in those of CONFIG; 100%: at once")
	flags.BoolVar(&c.atomic, "atomic", false, "change all data planes at the same moment, or none; with --timeout and --expect")
	message := flags.StringP("message", "m", "", "why, for the history; a `text`")
	c.waitFlags.flags(flags)
	return func(ctx context.Context, args []string) error {
		file, err := oneFile(args)
		if err != nil {
			return err
		}
		if err := c.check(flags); err != nil {
			return err
		}
		if flags.Changed("steps") {
			if c.atomic {
				return usagef("--atomic and --steps exclude each other")
			}
			if _, err := config.ParseSteps(*steps); err != nil {
				return usagef("--steps: %v", err)
			}
		}
		name, data, err := readConfig(env, file)
		if err != nil {
			return err
		}
		if err := c.dial(); err != nil {
			return err
		}
		defer c.close()
		request := &fleetv1.ApplyRequest{
			Name: name, Config: data, Force: *force, Steps: *steps, Author: env.Author, Message: *message,
		}
		if c.atomic {
			request.Atomic, request.PrepareTimeout, request.Expect = true, durationpb.New(c.timeout), uint32(c.expect)
		}
		if c.output == "table" {
			if err := consent(ctx, env, &c.remote, request, *yes); err != nil {
				return err
			}
		}
		return apply(ctx, env, c, request)
	}
}

// applyResult is the JSON form of the outcome.
type applyResult struct {
	Version  string   `json:"version"`
	Revision uint64   `json:"revision"`
	Changed  bool     `json:"changed"`
	Problems []string `json:"problems"` // never null
	// RollingOut is whether it goes through the fleet in steps.
	RollingOut bool `json:"rollingOut"`
	// With --atomic: why nothing has changed, or the time between the first data plane
	// that was seen to have changed and the last.
	Unprepared    []string `json:"unprepared,omitempty"`
	SpreadSeconds *float64 `json:"spreadSeconds,omitempty"`
	// With --wait: whether all data planes have applied it, why not, and those
	// that have not.
	Applied    *bool              `json:"applied,omitempty"`
	Error      string             `json:"error,omitempty"`
	DataPlanes []status.DataPlane `json:"dataplanes,omitempty"`
}

func apply(ctx context.Context, env *Env, c *client, request *fleetv1.ApplyRequest) error {
	most := applyTimeout
	if request.GetAtomic() {
		most += 2 * c.timeout // another one may be prepared before
	}
	answer, before, err := change(ctx, c, most, c.fleet.Apply, request)
	if err != nil {
		return err
	}
	result := applyResult{
		Version: answer.GetVersion(), Revision: answer.GetRevision(), Changed: answer.GetChanged(),
		Problems: append([]string{}, answer.GetProblems()...), RollingOut: answer.GetRollingOut(), Unprepared: answer.GetUnprepared(),
	}
	if answer.GetSpread() != nil {
		spread := answer.GetSpread().AsDuration().Seconds()
		result.SpreadSeconds = &spread
	}
	if len(result.Problems) > 0 {
		if c.output == "json" {
			return result.print(env, errReported)
		}
		fmt.Fprintln(env.Stderr, strings.Join(result.Problems, "\n"))
		return fmt.Errorf("%s was refused; nothing has changed", request.GetName())
	}
	if len(result.Unprepared) > 0 {
		if c.output == "json" {
			return result.print(env, errReported)
		}
		fmt.Fprintln(env.Stdout, strings.Join(result.Unprepared, "\n"))
		return fmt.Errorf("%s is not ready on every data plane; nothing has changed", request.GetName())
	}
	if request.GetAtomic() && answer.GetChanged() && answer.GetSpread() == nil {
		// Some do not answer, or the control plane is of an earlier release.
		return fmt.Errorf("%s is the running configuration now, but not all data planes were seen to change to it; see controlplane status", request.GetName())
	}
	if c.output == "table" {
		outcome := "is the running configuration now"
		switch {
		case answer.GetRollingOut() && answer.GetChanged():
			outcome = "is rolled out in steps; see controlplane rollout status"
		case answer.GetRollingOut():
			outcome = "was being rolled out already; see controlplane rollout status"
		case !answer.GetChanged():
			outcome = "was the running configuration already"
		}
		fmt.Fprintf(env.Stdout, "%s: revision %d (version %s) %s\n", request.GetName(), answer.GetRevision(), short(answer.GetVersion()), outcome)
		if spread := answer.GetSpread(); spread != nil {
			fmt.Fprintf(env.Stdout, "all data planes changed within %s\n", spread.AsDuration().Round(10*time.Microsecond))
		}
	}
	return conclude(ctx, env, c, result, before)
}

// conclude waits for the fleet after a change, if that is wanted, and prints what is
// left to print. before is a status from before the change.
func conclude(ctx context.Context, env *Env, c *client, result applyResult, before *fleetv1.StatusResponse) error {
	if !c.wait {
		if c.output == "json" {
			return result.print(env, nil)
		}
		return nil
	}
	s, err := c.run(ctx, env, c.applied(result.Version), before)
	if c.output == "json" {
		success := err == nil
		result.Applied = &success
		if err != nil {
			result.Error = err.Error()
			result.DataPlanes = status.From(&fleetv1.StatusResponse{Dataplanes: failures(s, c.timeout)}).DataPlanes
			err = errReported
		}
		return result.print(env, err)
	}
	if err == nil {
		fmt.Fprintf(env.Stdout, "applied by %s\n", plural(len(s.GetDataplanes()), "data plane"))
		return nil
	}
	if list := failures(s, c.timeout); len(list) > 0 {
		printDataPlanes(newPage(env), list)
	}
	return err
}

// print writes the result and returns the error given.
func (a applyResult) print(env *Env, outcome error) error {
	e := json.NewEncoder(env.Stdout)
	e.SetIndent("", "  ")
	if err := e.Encode(a); err != nil {
		return err
	}
	return outcome
}
