package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/spf13/pflag"

	"reverseproxy/controlplane/internal/fleet"
	"reverseproxy/controlplane/internal/status"
	fleetv1 "reverseproxy/proto/fleet/v1"
)

var drainCommand = &command{
	name:    "drain",
	args:    "backend URL",
	summary: "Stop new requests to a backend on every data plane; with --wait, until none is in flight",
	more: `
URL is written as in the pools of the file. The backend gets no new requests from
any endpoint until it is taken back with undrain, whatever becomes of the file, and
over restarts of the control plane if it has a --state-dir.

With --wait, success means that every data plane has applied it and has no request
in flight to the backend any more; tunnels (WebSocket) count. Data planes that are
being stopped are not waited for. --list shows what is drained.`,
	setUp: setUpDrain,
}

var undrainCommand = &command{
	name:    "undrain",
	args:    "backend URL",
	summary: "Give a drained backend its requests again",
	setUp:   setUpUndrain,
}

func setUpDrain(env *Env, flags *pflag.FlagSet) func(context.Context, []string) error {
	c := newClient(env, flags)
	force := flags.Bool("force", false, "accept that an endpoint has no backend left and answers 503")
	list := flags.Bool("list", false, "show the drained backends")
	c.waitFlags.flags(flags)
	return func(ctx context.Context, args []string) error {
		if *list && (len(args) > 0 || *force || c.wait) {
			return usagef("--list goes with nothing but --output")
		}
		request := &fleetv1.DrainRequest{Force: *force}
		if !*list {
			var err error
			if request.Url, err = oneBackend(args); err != nil {
				return err
			}
		}
		if err := c.open(flags); err != nil {
			return err
		}
		defer c.close()
		if *list {
			return listDrained(ctx, env, c)
		}
		return drain(ctx, env, c, request)
	}
}

func setUpUndrain(env *Env, flags *pflag.FlagSet) func(context.Context, []string) error {
	c := newClient(env, flags)
	c.waitFlags.flags(flags)
	return func(ctx context.Context, args []string) error {
		url, err := oneBackend(args)
		if err != nil {
			return err
		}
		if err := c.open(flags); err != nil {
			return err
		}
		defer c.close()
		return drain(ctx, env, c, &fleetv1.DrainRequest{Url: url, Undrain: true})
	}
}

// oneBackend returns the URL in "backend URL".
func oneBackend(args []string) (string, error) {
	if len(args) != 2 || args[0] != "backend" {
		return "", usagef("what is expected is: backend URL, such as backend http://10.0.0.1:8080")
	}
	return args[1], nil
}

// drainResult is the JSON form of the outcome.
type drainResult struct {
	URL       string `json:"url"`
	Drained   bool   `json:"drained"`
	Changed   bool   `json:"changed"`
	Version   string `json:"version"`
	Revision  uint64 `json:"revision"`
	Endpoints uint32 `json:"endpoints"`
	// Kept is whether it outlives a restart of the control plane.
	Kept bool `json:"kept"`
	// With --wait: whether it is done, why not, and the data planes to blame.
	Done       *bool     `json:"done,omitempty"`
	Error      string    `json:"error,omitempty"`
	DataPlanes []blocker `json:"dataplanes,omitempty"`
}

// blocker is a data plane that keeps a drain from being done.
type blocker struct {
	status.DataPlane
	InFlight *uint64 `json:"inFlight"` // null: not told
}

// drain drains a backend, or takes it back, and waits if that is wanted.
func drain(ctx context.Context, env *Env, c *client, request *fleetv1.DrainRequest) error {
	answer, before, err := change(ctx, c, applyTimeout, c.fleet.Drain, request)
	if err != nil {
		return err
	}
	result := drainResult{
		URL: request.GetUrl(), Drained: !request.GetUndrain(), Changed: answer.GetChanged(), Kept: answer.GetKept(),
		Version: answer.GetVersion(), Revision: answer.GetRevision(), Endpoints: answer.GetEndpoints(),
	}
	if result.Drained && !result.Kept {
		fmt.Fprintln(env.Stderr, "controlplane: warning: the control plane has no --state-dir: when it is started again, "+
			"the backend gets requests again; start it with --state-dir, or give the backend weight: 0 in the file")
	}
	if c.output == "table" {
		result.say(env)
	}
	if c.wait {
		g, blame := c.applied(answer.GetVersion()), notApplied
		if result.Drained {
			g, blame = c.drained(request.GetUrl()), notDrained
		}
		var s *fleetv1.StatusResponse
		s, err = c.run(ctx, env, g, before)
		done := err == nil
		result.Done = &done
		if err != nil {
			result.Error, result.DataPlanes = err.Error(), blame(s, request.GetUrl(), &c.waitFlags)
		}
		if c.output == "table" && done {
			result.sayDone(env, len(s.GetDataplanes()))
		}
	}
	if c.output == "json" {
		e := json.NewEncoder(env.Stdout)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		if printErr := e.Encode(result); printErr != nil {
			return printErr
		}
		if err != nil {
			return errReported
		}
		return nil
	}
	if len(result.DataPlanes) > 0 {
		printBlockers(newPage(env), result.DataPlanes)
	}
	return err
}

// say prints what has been done, before the waiting.
func (d *drainResult) say(env *Env) {
	outcome := "gets no new requests"
	switch {
	case !d.Drained:
		outcome = "gets requests again"
	case !d.Changed:
		outcome = "was drained already"
	}
	fmt.Fprintf(env.Stdout, "%s: %s (revision %d, version %s, %s)\n", d.URL, outcome, d.Revision, short(d.Version),
		plural(int(d.Endpoints), "endpoint"))
}

// sayDone prints that the waiting was worth it.
func (d *drainResult) sayDone(env *Env, dataPlanes int) {
	if d.Drained {
		fmt.Fprintf(env.Stdout, "no request is in flight to it on %s\n", plural(dataPlanes, "data plane"))
		return
	}
	fmt.Fprintf(env.Stdout, "applied by %s\n", plural(dataPlanes, "data plane"))
}

// drained is the goal that every data plane has applied that a backend is drained, and
// has nothing in flight to it.
func (w *waitFlags) drained(url string) goal {
	return goal{
		request: &fleetv1.StatusRequest{Ask: true},
		judge: func(s *fleetv1.StatusResponse) verdict {
			d := drainedOf(s, url)
			if d == nil {
				return verdict{true, fmt.Errorf("%s is not drained any more: it was taken back, "+
					"or the control plane was started again without --state-dir", url)}
			}
			n, known := count(s), len(s.GetDataplanes())
			// During a roll-out it is drained in both tables, and who is no holder runs its own.
			settled := n[applied] == known || rollingOut(s.GetRollout())
			switch {
			case len(d.GetHolders()) == 0 && settled && known >= w.expect:
				return verdict{done: true}
			case n[rejected] > 0 && len(d.GetHolders()) == n[rejected] && n[applied]+n[rejected] == known:
				return verdict{true, fmt.Errorf("%s rejected version %s and may go on sending requests", outOf(n[rejected], known), short(s.GetVersion()))}
			}
			return verdict{}
		},
		late: func(s *fleetv1.StatusResponse) error {
			if known := len(s.GetDataplanes()); known < w.expect {
				return fmt.Errorf("timed out after %s: %d of %d expected data planes are known", w.timeout, known, w.expect)
			}
			return fmt.Errorf("timed out after %s: %s may have requests in flight to %s; it stays drained",
				w.timeout, outOf(len(notDrained(s, url, w)), len(s.GetDataplanes())), url)
		},
	}
}

// drainedOf returns what a status says about a drained backend, nil when it is not.
func drainedOf(s *fleetv1.StatusResponse, url string) *fleetv1.DrainedBackend {
	for _, d := range s.GetDraining() {
		if d.GetUrl() == url {
			return d
		}
	}
	return nil
}

// notApplied returns the data planes that have not applied the desired version.
func notApplied(s *fleetv1.StatusResponse, _ string, w *waitFlags) []blocker {
	var list []blocker
	for _, d := range status.From(&fleetv1.StatusResponse{Dataplanes: failures(s, w.timeout)}).DataPlanes {
		list = append(list, blocker{DataPlane: d})
	}
	return list
}

// notDrained returns the data planes that may have requests in flight to a backend,
// each with the reason.
func notDrained(s *fleetv1.StatusResponse, url string, w *waitFlags) []blocker {
	failures(s, w.timeout) // adds the reasons
	holders := map[[2]string]*fleetv1.DrainHolder{}
	for _, h := range drainedOf(s, url).GetHolders() {
		holders[[2]string{h.GetId(), h.GetSessionId()}] = h
	}
	var list []blocker
	for _, d := range s.GetDataplanes() {
		h := holders[[2]string{d.GetId(), d.GetSessionId()}]
		if h == nil && d.GetState() == applied {
			continue
		}
		var inFlight *uint64
		if n := h.GetInFlight(); h.GetTold() || n > 0 {
			inFlight = &n
		}
		if d.GetState() == applied && d.GetError() == "" && !h.GetTold() {
			d.Error = "it has not told what is in flight; an older release cannot"
		}
		row := status.From(&fleetv1.StatusResponse{Dataplanes: []*fleetv1.DataPlane{d}}).DataPlanes[0]
		list = append(list, blocker{row, inFlight})
	}
	return list
}

// printBlockers prints a row for each.
func printBlockers(p *page, list []blocker) {
	rows := make([][]cell, 0, len(list))
	for _, b := range list {
		inFlight := "-"
		if b.InFlight != nil {
			inFlight = strconv.FormatUint(*b.InFlight, 10)
		}
		color := red
		if b.State == fleet.StateName(applied) {
			color = green
		}
		rows = append(rows, []cell{
			{text: b.ID}, {text: b.Address, color: faint}, {text: b.State, color: color}, {text: short(b.Version)},
			{text: inFlight}, {text: oneLine(b.Error), color: red},
		})
	}
	p.table([]string{"ID", "ADDRESS", "STATE", "VERSION", "IN FLIGHT", "ERROR"}, rows)
}

// listDrained prints the drained backends.
func listDrained(ctx context.Context, env *Env, c *client) error {
	s, err := c.status(ctx, &fleetv1.StatusRequest{})
	if err != nil {
		return err
	}
	if c.output == "json" {
		e := json.NewEncoder(env.Stdout)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(status.From(s).Draining)
	}
	p := newPage(env)
	if len(s.GetDraining()) == 0 {
		p.printf("No backend is drained.\n")
		return nil
	}
	printDraining(p, s)
	return nil
}

// printDraining prints a line for each drained backend.
func printDraining(p *page, s *fleetv1.StatusResponse) {
	for _, d := range s.GetDraining() {
		text := fmt.Sprintf("draining: %s, in flight %d on %s", d.GetUrl(), d.GetInFlight(), plural(int(d.GetDataPlanes()), "data plane"))
		silent := 0
		for _, h := range d.GetHolders() {
			if !h.GetTold() {
				silent++
			}
		}
		if silent > 0 {
			text += fmt.Sprintf("; %s not told yet", hasNot(silent))
		}
		if !d.GetConfigured() {
			text += "; it is not in the file"
		}
		p.printf("%s\n", p.paint(yellow, text))
	}
	if n := int(s.GetUnhealthyBackends()); n > 0 {
		p.printf("%s\n", p.paint(red, fmt.Sprintf("unhealthy somewhere: %s; controlplane top shows where", plural(n, "backend"))))
	}
}

// hasNot counts data planes that have not done something.
func hasNot(n int) string {
	if n == 1 {
		return "1 data plane has"
	}
	return fmt.Sprintf("%d data planes have", n)
}
