package cli

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"reverseproxy/controlplane/internal/fleet"
	"reverseproxy/controlplane/internal/status"
	fleetv1 "reverseproxy/proto/fleet/v1"
)

var statusCommand = &command{
	name:    "status",
	args:    "[endpoint NAME]",
	summary: "Show the fleet, a row per data plane, or one endpoint, a row per backend",
	more: `
A data plane is
  applied       it runs the desired version
  pending       the desired version is on its way, or its step of a roll-out is still to come
  rejected      it has refused the desired version; it goes on with the one before
  stale         it is connected, but silent, or late to answer
  disconnected  it has vanished; forgotten after serve's --forget-after

With endpoint NAME, the backends of that endpoint are shown as all data planes
together see them.

With --wait, a configuration file whose newest content was refused is a failure.`,
	setUp: setUpStatus,
}

func setUpStatus(env *Env, flags *pflag.FlagSet) func(context.Context, []string) error {
	c := newClient(env, flags)
	watch := flags.Bool("watch", false, "show it again every second until interrupted")
	endpoints := flags.Bool("endpoints", false, "with -o json: add every endpoint in use, with its backends")
	c.waitFlags.flags(flags)
	return func(ctx context.Context, args []string) error {
		name, err := oneEndpoint(args)
		switch {
		case err != nil:
			return err
		case name != "" && (*watch || c.wait || *endpoints):
			return usagef("status endpoint NAME goes with none of --watch, --wait and --endpoints")
		case *watch && c.wait:
			return usagef("--watch and --wait exclude each other")
		case *endpoints && (c.output != "json" || *watch || c.wait):
			return usagef("--endpoints goes with -o json only; see also controlplane top")
		}
		if err := c.open(flags); err != nil {
			return err
		}
		defer c.close()
		switch {
		case name != "":
			return statusOfEndpoint(ctx, env, &c.remote, name, c.output)
		case *watch:
			return watchStatus(ctx, env, &c.remote, c.output)
		case c.wait:
			return waitStatus(ctx, env, c)
		}
		s, err := c.status(ctx, &fleetv1.StatusRequest{})
		if err != nil {
			return err
		}
		if *endpoints {
			return printWithEndpoints(ctx, env, &c.remote, s)
		}
		printStatus(env, s, c.output)
		return nil
	}
}

// oneEndpoint returns the name in "endpoint NAME", empty when there are no arguments.
func oneEndpoint(args []string) (string, error) {
	switch {
	case len(args) == 0:
		return "", nil
	case len(args) != 2 || args[0] != "endpoint" || args[1] == "":
		return "", usagef("what may follow status is: endpoint NAME, but there is %q", strings.Join(args, " "))
	}
	return args[1], nil
}

// printWithEndpoints prints the document about the fleet and every endpoint in use.
func printWithEndpoints(ctx context.Context, env *Env, r *remote, s *fleetv1.StatusResponse) error {
	b, err := r.backends(ctx, &fleetv1.BackendsRequest{Ask: true})
	if err != nil {
		return err
	}
	document := status.From(s)
	document.Endpoints = status.EndpointsFrom(b)
	_, _ = env.Stdout.Write(document.JSON())
	return nil
}

// printStatus prints the fleet.
func printStatus(env *Env, s *fleetv1.StatusResponse, output outputFormat) {
	if output == "json" {
		_, _ = env.Stdout.Write(status.From(s).JSON())
		return
	}
	p := newPage(env)
	c := s.GetConfig()
	p.printf("%s: revision %d, version %s, %s, accepted %s\n", c.GetFile(), s.GetRevision(), short(s.GetVersion()),
		plural(int(c.GetEndpoints()), "endpoint"), ago(time.Since(c.GetLoadedAt().AsTime())))
	if c.GetChanging() {
		p.printf("%s\n", p.paint(yellow, "its newest content is still being read; the revision above goes on"))
	}
	if !c.GetOk() {
		p.printf("%s\n%s\n", p.paint(red, "its newest content was refused; the revision above goes on:"), c.GetError())
	}
	if r := s.GetRollout(); rollingOut(r) {
		p.printf("roll-out from revision %d: %s\n", r.GetBaseRevision(), describeRollout(p, r))
	}
	printDraining(p, s)
	p.printf("\n")
	if len(s.GetDataplanes()) == 0 {
		p.printf("No data plane has connected yet.\n")
		return
	}
	printDataPlanes(p, s.GetDataplanes())
}

// printDataPlanes prints a row for each.
func printDataPlanes(p *page, list []*fleetv1.DataPlane) {
	header := []string{"ID", "ADDRESS", "STATE", "VERSION", "REVISION", "CONTACT", "REQUESTS", "ERROR"}
	rows := make([][]cell, 0, len(list))
	for _, d := range list {
		version := short(d.GetVersion())
		if d.GetSource() == "disk" {
			version += " (disk)"
		}
		rows = append(rows, []cell{
			{text: d.GetId(), color: ""}, {text: d.GetAddress(), color: faint},
			{text: fleet.StateName(d.GetState()), color: stateColor(d.GetState())},
			{text: version}, {text: strconv.FormatUint(d.GetRevision(), 10)},
			{text: ago(time.Duration(d.GetLastContactSeconds() * float64(time.Second)))},
			{text: strconv.FormatUint(d.GetRequestsTotal(), 10)}, {text: oneLine(d.GetError()), color: red},
		})
	}
	p.table(header, rows)
}

func stateColor(s fleetv1.DataPlaneState) string {
	switch s {
	case applied:
		return green
	case pending:
		return yellow
	default:
		return red
	}
}

// watchStatus shows the fleet until it is interrupted.
func watchStatus(ctx context.Context, env *Env, r *remote, output outputFormat) error {
	ask := func(ctx context.Context) (*fleetv1.StatusResponse, error) {
		return r.status(ctx, &fleetv1.StatusRequest{})
	}
	return watch(ctx, env, output, ask, func(s *fleetv1.StatusResponse) (over bool) {
		printStatus(env, s, output)
		return false
	})
}

// waitStatus waits for the fleet and prints it, as far as it is known.
func waitStatus(ctx context.Context, env *Env, c *client) error {
	s, err := c.run(ctx, env, c.applied(""), nil)
	if s != nil {
		if err != nil {
			failures(s, c.timeout) // adds the reasons
		}
		printStatus(env, s, c.output)
	}
	return err
}
