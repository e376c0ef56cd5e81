package cli

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"reverseproxy/controlplane/internal/status"
	fleetv1 "reverseproxy/proto/fleet/v1"
)

var topCommand = &command{
	name:    "top",
	args:    "",
	summary: "Show the busiest backends over the whole fleet, anew every second",
	more: `
A row is a backend of an endpoint: HEALTHY is on how many of the data planes that use
it; a tunnel counts as a request in flight. It is shown once, and nothing else is
done, when standard output is no terminal. Ctrl-C ends it.`,
	setUp: setUpTop,
}

const (
	// topInterval is how often the data planes are asked.
	topInterval = time.Second
	// topRows is how many rows are shown where there is no terminal to fill, and
	// topHeader how many lines above them in one.
	topRows, topHeader = 20, 4
)

func setUpTop(env *Env, flags *pflag.FlagSet) func(context.Context, []string) error {
	var r remote
	r.flags(env, flags)
	once := flags.Bool("once", false, "show it once")
	rows := flags.IntP("rows", "n", 0, "how many `rows` (default: what fits into the terminal, else 20)")
	return func(ctx context.Context, args []string) error {
		switch {
		case len(args) > 0:
			return usagef("top takes no arguments, but there is %q", args[0])
		case flags.Changed("rows") && *rows <= 0:
			return usagef("--rows must be more than zero")
		}
		if err := r.dial(); err != nil {
			return err
		}
		defer r.close()
		return top(ctx, env, &r, *rows, *once)
	}
}

// top shows the backends again and again, on a terminal in the same place.
func top(ctx context.Context, env *Env, r *remote, rows int, once bool) error {
	_, terminal := terminalWidth(env.Stdout)
	tick := time.NewTicker(topInterval)
	defer tick.Stop()
	for first := true; ; first = false {
		b, err := r.backends(ctx, &fleetv1.BackendsRequest{Limit: uint32(rowsOn(env, rows)), Ask: true})
		switch {
		case ctx.Err() != nil:
			return nil // interrupting is how it ends
		case err != nil && (first || once):
			return err
		}
		if terminal && !once {
			fmt.Fprint(env.Stdout, "\x1b[H\x1b[2J")
		}
		if err != nil {
			fmt.Fprintf(env.Stderr, "controlplane: %v\n", err)
		} else {
			printTop(newPage(env), b)
		}
		if once || !terminal {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// rowsOn returns how many rows are shown: as many as are wanted, or as fit.
func rowsOn(env *Env, wanted int) int {
	if wanted > 0 {
		return wanted
	}
	if f, ok := env.Stdout.(*os.File); ok {
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Row > topHeader {
			return int(size.Row) - topHeader
		}
	}
	return topRows
}

// printTop prints the sums and a row for each backend.
func printTop(p *page, b *fleetv1.BackendsResponse) {
	p.printf("revision %d, version %s, %s: %s requests/s, %s errors/s, %d in flight\n", b.GetRevision(), short(b.GetVersion()),
		plural(int(b.GetDataPlanes()), "data plane"), perSecond(b.GetRequestsPerSecond()), perSecond(b.GetFailuresPerSecond()), b.GetInFlight())
	if b.GetIncomplete() {
		p.printf("%s\n", p.paint(red, "the control plane has no room for all reports: the figures are too low"))
	}
	p.printf("\n")
	if len(b.GetBackends()) == 0 {
		p.printf("No data plane has reported on a backend yet.\n")
		return
	}
	printBackends(p, b.GetBackends())
	if n := b.GetBackendsOmitted(); n > 0 {
		p.printf("and %d more\n", n)
	}
}

// printBackends prints a row for each.
func printBackends(p *page, list []*fleetv1.BackendStatus) {
	header := []string{"ENDPOINT", "BACKEND", "WEIGHT", "REQ/S", "ERR/S", "IN FLIGHT", "HEALTHY", "NOTE"}
	rows := make([][]cell, 0, len(list))
	for _, b := range list {
		healthy, color := fmt.Sprintf("%d/%d", b.GetHealthy(), b.GetDataPlanes()), green
		switch {
		case b.GetDataPlanes() == 0:
			healthy, color = "-", faint
		case b.GetHealthy() < b.GetDataPlanes():
			color = red
		}
		errors := cell{text: perSecond(b.GetFailuresPerSecond())}
		if b.GetFailuresPerSecond() > 0 {
			errors.color = red
		}
		rows = append(rows, []cell{
			{text: b.GetEndpoint()}, {text: b.GetUrl()}, {text: strconv.FormatUint(uint64(b.GetWeight()), 10)},
			{text: perSecond(b.GetRequestsPerSecond())}, errors, {text: strconv.FormatUint(b.GetInFlight(), 10)},
			{text: healthy, color: color}, {text: noteOn(b), color: yellow},
		})
	}
	p.table(header, rows)
}

// noteOn says what else there is to know about a backend.
func noteOn(b *fleetv1.BackendStatus) string {
	var notes []string
	if b.GetDraining() {
		notes = append(notes, "draining")
	}
	for _, t := range b.GetTroubles() {
		notes = append(notes, fmt.Sprintf("%s (on %d)", oneLine(t.GetReason()), t.GetDataPlanes()))
	}
	return strings.Join(notes, "; ")
}

// perSecond writes a rate with one decimal where that says something.
func perSecond(rate float64) string {
	if rate >= 100 || rate == 0 {
		return strconv.FormatFloat(rate, 'f', 0, 64)
	}
	return strconv.FormatFloat(rate, 'f', 1, 64)
}

// statusOfEndpoint prints the backends of one endpoint.
func statusOfEndpoint(ctx context.Context, env *Env, r *remote, name string, output outputFormat) error {
	b, err := r.backends(ctx, &fleetv1.BackendsRequest{Endpoint: name, Ask: true})
	if err != nil {
		return err
	}
	if output == "json" {
		for _, e := range status.EndpointsFrom(b) {
			_, _ = env.Stdout.Write(e.JSON())
		}
		return nil
	}
	p := newPage(env)
	p.printf("%s: revision %d, version %s, %s\n\n", name, b.GetRevision(), short(b.GetVersion()),
		plural(int(b.GetDataPlanes()), "data plane"))
	printBackends(p, b.GetBackends())
	return nil
}
