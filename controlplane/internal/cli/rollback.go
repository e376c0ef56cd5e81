package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	fleetv1 "reverseproxy/proto/fleet/v1"
)

var rollbackCommand = &command{
	name:    "rollback",
	args:    "REV",
	summary: "Make the text of an earlier revision the running configuration again, as a new revision",
	more: `
The text is checked by the rules of today, and replaces the content of the file that
the control plane watches, so that file and fleet agree. Drained backends stay drained.
To see what it would change, controlplane diff REV says it the other way round.`,
	setUp: setUpRollback,
}

func setUpRollback(env *Env, flags *pflag.FlagSet) func(context.Context, []string) error {
	c := newClient(env, flags)
	force := flags.Bool("force", false, "accept that most endpoints, or all, are dropped")
	message := flags.StringP("message", "m", "", "why, for the history; a `text`")
	c.waitFlags.flags(flags)
	return func(ctx context.Context, args []string) error {
		if len(args) != 1 {
			return usagef("one REV is expected: the number of a revision, such as 42")
		}
		revision, err := revisionIn(args[0])
		if err != nil {
			return err
		}
		if err := c.open(flags); err != nil {
			return err
		}
		defer c.close()
		return rollback(ctx, env, c, &fleetv1.RollbackRequest{
			Revision: revision, Author: env.Author, Message: *message, Force: *force,
		})
	}
}

func rollback(ctx context.Context, env *Env, c *client, request *fleetv1.RollbackRequest) error {
	answer, before, err := change(ctx, c, applyTimeout, c.fleet.Rollback, request)
	if err != nil {
		return err
	}
	result := applyResult{
		Version: answer.GetVersion(), Revision: answer.GetRevision(), Changed: answer.GetChanged(),
		Problems: append([]string{}, answer.GetProblems()...), RollingOut: answer.GetRollingOut(),
	}
	if len(result.Problems) > 0 {
		if c.output == "json" {
			return result.print(env, errReported)
		}
		fmt.Fprintln(env.Stderr, strings.Join(result.Problems, "\n"))
		return fmt.Errorf("the text of revision %d was refused; nothing has changed", request.GetRevision())
	}
	if c.output == "table" {
		outcome := "is the running configuration again, as"
		switch {
		case !result.Changed && result.RollingOut:
			outcome = "is what is being rolled out,"
		case !result.Changed:
			outcome = "means the same as the running configuration,"
		}
		fmt.Fprintf(env.Stdout, "revision %d %s revision %d (version %s)\n", request.GetRevision(), outcome, result.Revision, short(result.Version))
	}
	return conclude(ctx, env, c, result, before)
}
