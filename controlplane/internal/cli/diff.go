package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"reverseproxy/controlplane/internal/status"
	fleetv1 "reverseproxy/proto/fleet/v1"
)

var diffCommand = &command{
	name:    "diff",
	args:    "A [B]",
	summary: "Say what differs between two revisions; without B, between A and the newest",
	more: `
A line for each change: "+" is new, "-" is gone, "~" is different. What data planes do
counts, not how the file is written; -o unified compares the texts. The exit status is
0 whether there is a difference or not.`,
	setUp: setUpDiff,
}

// diffFormat is the value of -o of diff.
type diffFormat string

// Set implements pflag.Value.
func (f *diffFormat) Set(s string) error {
	if s != "words" && s != "unified" && s != "json" {
		return fmt.Errorf("%q is neither words nor unified nor json", s)
	}
	*f = diffFormat(s)
	return nil
}

// String implements pflag.Value.
func (f *diffFormat) String() string { return string(*f) }

// Type implements pflag.Value.
func (f *diffFormat) Type() string { return "words|unified|json" }

func setUpDiff(env *Env, flags *pflag.FlagSet) func(context.Context, []string) error {
	var r remote
	output := diffFormat("words")
	r.flags(env, flags)
	flags.VarP(&output, "output", "o", "in words, as texts, or for scripts")
	return func(ctx context.Context, args []string) error {
		if len(args) < 1 || len(args) > 2 {
			return usagef("what is expected is: A [B], the numbers of two revisions, such as 41 42")
		}
		var request fleetv1.DiffRequest
		var err error
		if request.From, err = revisionIn(args[0]); err != nil {
			return err
		}
		if len(args) == 2 {
			if request.To, err = revisionIn(args[1]); err != nil {
				return err
			}
		}
		if err := r.dial(); err != nil {
			return err
		}
		defer r.close()
		ctx, cancel := context.WithTimeout(ctx, applyTimeout)
		defer cancel()
		d, err := r.fleet.Diff(ctx, &request)
		if err != nil {
			return r.explainError(err)
		}
		switch output {
		case "json":
			_, _ = env.Stdout.Write(status.DiffFrom(request.GetFrom(), d).JSON())
		case "unified":
			printUnified(newPage(env), d.GetUnified())
		default:
			printDiff(newPage(env), request.GetFrom(), d)
		}
		return nil
	}
}

// printDiff prints the changes in words.
func printDiff(p *page, from uint64, d *fleetv1.DiffResponse) {
	for _, c := range d.GetChanges() {
		printChange(p, c)
	}
	switch {
	case len(d.GetChanges()) > 0:
	case d.GetUnified() != "":
		p.printf("Revisions %d and %d mean the same; their texts differ, see -o unified.\n", from, d.GetTo())
	default:
		p.printf("Revisions %d and %d are the same.\n", from, d.GetTo())
	}
}

// printUnified prints a unified diff.
func printUnified(p *page, text string) {
	for line := range strings.Lines(text) {
		color := ""
		switch {
		case strings.HasPrefix(line, "---"), strings.HasPrefix(line, "+++"):
			color = bold
		case strings.HasPrefix(line, "@@"):
			color = faint
		case strings.HasPrefix(line, "+"):
			color = green
		case strings.HasPrefix(line, "-"):
			color = red
		}
		content, end := strings.CutSuffix(line, "\n")
		p.printf("%s", p.paint(color, content))
		if end {
			p.printf("\n")
		}
	}
}
