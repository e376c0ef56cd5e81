package cli

import (
	"context"
	"fmt"
	"time"
)

// watchInterval is how often --watch looks anew.
const watchInterval = time.Second

// watch asks and shows the answer again and again, on a terminal in the same place,
// until show says that it is over or somebody interrupts. An error ends it only when
// there has been no answer yet.
func watch[T any](ctx context.Context, env *Env, output outputFormat, ask func(context.Context) (T, error), show func(T) (over bool)) error {
	_, terminal := terminalWidth(env.Stdout)
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for first := true; ; first = false {
		answer, err := ask(ctx)
		switch {
		case ctx.Err() != nil:
			return nil // interrupting is how it ends
		case err != nil && first:
			return err
		case terminal:
			fmt.Fprint(env.Stdout, "\x1b[H\x1b[2J")
		case !first && output == "table":
			fmt.Fprintln(env.Stdout)
		}
		if err != nil {
			fmt.Fprintf(env.Stderr, "controlplane: %v\n", err)
		} else if show(answer) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
