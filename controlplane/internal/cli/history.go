package cli

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"reverseproxy/controlplane/internal/status"
	fleetv1 "reverseproxy/proto/fleet/v1"
)

var historyCommand = &command{
	name:    "history",
	args:    "",
	summary: "List the accepted configurations, the newest first",
	more: `
Every accepted change is a revision: an edit of the file, apply, rollback, a drain.
The last 100 are kept with their texts, over restarts of the control plane if it has
a --state-dir. For example:

  controlplane history -n 10
  controlplane show 42 > old.yaml
  controlplane diff 42
  controlplane rollback 42 --message "43 is slow" --wait`,
	setUp: setUpHistory,
}

var showCommand = &command{
	name:    "show",
	args:    "REV",
	summary: "Print the text of a revision, exactly as it was accepted",
	more: `
With -o json, what is known about the revision is printed instead of its text.`,
	setUp: setUpShow,
}

// Author returns who gives commands, as user@host.
func Author() string {
	name := "somebody"
	if u, err := user.Current(); err == nil && u.Username != "" {
		name = u.Username
	}
	if host, err := os.Hostname(); err == nil && host != "" {
		name += "@" + host
	}
	return name
}

func setUpHistory(env *Env, flags *pflag.FlagSet) func(context.Context, []string) error {
	var r remote
	output := outputFormat("table")
	r.flags(env, flags)
	limit := flags.IntP("number", "n", 0, "`how many`, at most; 0: all that are kept")
	flags.VarP(&output, "output", "o", "for people or for scripts")
	return func(ctx context.Context, args []string) error {
		switch {
		case len(args) > 0:
			return usagef("history takes no arguments, but there is %q; show prints one revision", args[0])
		case *limit < 0:
			return usagef("--number must not be negative")
		}
		if err := r.dial(); err != nil {
			return err
		}
		defer r.close()
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		h, err := r.fleet.History(ctx, &fleetv1.HistoryRequest{Limit: uint32(*limit)})
		if err != nil {
			return r.explainError(err)
		}
		if output == "json" {
			_, _ = env.Stdout.Write(status.HistoryFrom(h).JSON())
			return nil
		}
		printHistory(newPage(env), h.GetRevisions())
		if !h.GetKept() {
			fmt.Fprintln(env.Stderr, "controlplane: warning: the control plane has no --state-dir: its history is gone when it is started again")
		}
		return nil
	}
}

// printHistory prints a row for each revision.
func printHistory(p *page, list []*fleetv1.Revision) {
	rows := make([][]cell, 0, len(list))
	for _, e := range list {
		note := cell{text: oneLine(e.GetMessage())}
		if e.GetOutcome() != "" {
			note = cell{text: strings.TrimPrefix(note.text+"; "+e.GetOutcome(), "; "), color: yellow}
		}
		rows = append(rows, []cell{
			{text: strconv.FormatUint(e.GetRevision(), 10), color: bold}, {text: e.GetAcceptedAt().AsTime().Local().Format(time.DateTime)},
			{text: originOf(e)}, {text: e.GetAuthor()}, {text: strconv.FormatUint(uint64(e.GetEndpoints()), 10)},
			{text: short(e.GetVersion()), color: faint}, note,
		})
	}
	p.table([]string{"REVISION", "ACCEPTED", "BY", "AUTHOR", "ENDPOINTS", "VERSION", "MESSAGE"}, rows)
}

// originOf says where a revision came from.
func originOf(e *fleetv1.Revision) string {
	switch e.GetOrigin() {
	case fleetv1.Origin_ORIGIN_FILE:
		return "file"
	case fleetv1.Origin_ORIGIN_APPLY:
		return "apply"
	case fleetv1.Origin_ORIGIN_ROLLBACK:
		return fmt.Sprintf("rollback to %d", e.GetRestores())
	case fleetv1.Origin_ORIGIN_ABORT:
		return fmt.Sprintf("abort, back to %d", e.GetRestores())
	case fleetv1.Origin_ORIGIN_DRAIN:
		return "drain"
	}
	return "-"
}

func setUpShow(env *Env, flags *pflag.FlagSet) func(context.Context, []string) error {
	var r remote
	output := outputFormat("table")
	r.flags(env, flags)
	flags.VarP(&output, "output", "o", "the text, or json: what is known about the revision")
	return func(ctx context.Context, args []string) error {
		if len(args) != 1 {
			return usagef("one REV is expected: the number of a revision, such as 42")
		}
		revision, err := revisionIn(args[0])
		if err != nil {
			return err
		}
		if err := r.dial(); err != nil {
			return err
		}
		defer r.close()
		ctx, cancel := context.WithTimeout(ctx, applyTimeout)
		defer cancel()
		a, err := r.fleet.Show(ctx, &fleetv1.ShowRequest{Revision: revision})
		if err != nil {
			return r.explainError(err)
		}
		content := a.GetConfig()
		if output == "json" {
			content = status.RevisionFrom(a.GetRevision()).JSON()
		}
		_, err = env.Stdout.Write(content)
		return err
	}
}

// revisionIn returns the number that an argument is.
func revisionIn(arg string) (uint64, error) {
	n, err := strconv.ParseUint(arg, 10, 64)
	if err != nil || n == 0 {
		return 0, usagef("%q is not the number of a revision, such as 42; controlplane history lists them", arg)
	}
	return n, nil
}
