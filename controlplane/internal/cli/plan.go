package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"reverseproxy/controlplane/internal/plan"
	fleetv1 "reverseproxy/proto/fleet/v1"
)

var planCommand = &command{
	name:    "plan",
	args:    "CONFIG",
	summary: "Say what applying CONFIG would change, and what that means for the traffic of the last minutes",
	more: `
CONFIG may be - for standard input. Nothing is changed. Problems go to standard error.
What the data planes have seen in the last five minutes is looked at: the rates of
endpoints, and a sample of requests by method, host and path.

  controlplane plan config.yaml && controlplane apply config.yaml
  controlplane plan -o json config.yaml | jq .impacts`,
	exit:  ", 3 live traffic would be lost",
	setUp: setUpPlan,
}

func setUpPlan(env *Env, flags *pflag.FlagSet) func(context.Context, []string) error {
	var r remote
	output := outputFormat("table")
	r.flags(env, flags)
	flags.VarP(&output, "output", "o", "for people or for scripts")
	return func(ctx context.Context, args []string) error {
		file, err := oneFile(args)
		if err != nil {
			return err
		}
		name, data, err := readConfig(env, file)
		if err != nil {
			return err
		}
		if err := r.dial(); err != nil {
			return err
		}
		defer r.close()
		a, err := r.plan(ctx, &fleetv1.PlanRequest{Name: name, Config: data})
		if err != nil {
			return r.explainError(err)
		}
		outcome := outcomeOf(a)
		switch {
		case output == "json":
			if err := printPlanJSON(env, a); err != nil {
				return err
			}
		case len(a.GetProblems()) > 0:
			fmt.Fprintln(env.Stderr, strings.Join(a.GetProblems(), "\n"))
		default:
			printPlan(newPage(env), name, a)
		}
		return outcome
	}
}

// plan asks for a plan. The error is that of the call.
func (r *remote) plan(ctx context.Context, request *fleetv1.PlanRequest) (*fleetv1.PlanResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	return r.fleet.Plan(ctx, request)
}

// outcomeOf is how the command ends once the plan is printed.
func outcomeOf(a *fleetv1.PlanResponse) error {
	switch {
	case len(a.GetProblems()) > 0:
		return errReported
	case a.GetLosesTraffic():
		return errLoss
	}
	return nil
}

// consent prints the plan of what is to be applied, and on a terminal asks. A text with
// problems is refused by apply itself, and so is one that drops too much.
func consent(ctx context.Context, env *Env, r *remote, request *fleetv1.ApplyRequest, yes bool) error {
	a, err := r.plan(ctx, &fleetv1.PlanRequest{Name: request.GetName(), Config: request.GetConfig()})
	switch {
	case status.Code(err) == codes.Unimplemented:
		return nil // a control plane that is older than this command
	case err != nil:
		return r.explainError(err)
	case len(a.GetProblems()) > 0:
		return nil
	}
	p := newPage(env)
	printPlan(p, request.GetName(), a)
	p.printf("\n")
	_, in := terminalWidth(env.Stdin)
	_, out := terminalWidth(env.Stdout)
	refused := a.GetDrop() != "" && !request.GetForce()
	if yes || !in || !out || refused || a.GetVersion() == a.GetPlannedVersion() {
		return nil
	}
	return ask(ctx, env)
}

// ask returns an error unless the answer is yes.
func ask(ctx context.Context, env *Env) error {
	fmt.Fprint(env.Stdout, "Apply? [y/N] ")
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(env.Stdin).ReadString('\n') // the end of the input is a no
		answer <- line
	}()
	select {
	case line := <-answer:
		if !strings.HasSuffix(line, "\n") {
			fmt.Fprintln(env.Stdout)
		}
		switch strings.ToLower(strings.TrimSpace(line)) {
		case "y", "yes":
			return nil
		}
	case <-ctx.Done():
		fmt.Fprintln(env.Stdout)
	}
	return fmt.Errorf("not applied; nothing has changed")
}

// shownChanges is how many changes are printed for people.
const shownChanges = 40

// printPlan prints a plan for people.
func printPlan(p *page, name string, a *fleetv1.PlanResponse) {
	if a.GetVersion() == a.GetPlannedVersion() {
		p.printf("%s: means the same as revision %d (version %s); nothing would change\n", name, a.GetRevision(), short(a.GetVersion()))
		return
	}
	p.printf("%s: revision %d (version %s) would become version %s\n\n", name, a.GetRevision(), short(a.GetVersion()), short(a.GetPlannedVersion()))
	p.printf("%s\n", p.paint(bold, "CHANGES"))
	for _, c := range a.GetChanges()[:min(len(a.GetChanges()), shownChanges)] {
		printChange(p, c)
	}
	if more := len(a.GetChanges()) - shownChanges; more > 0 {
		p.printf("  and %d more; see -o json\n", more)
	}
	p.printf("\n%s\n", p.paint(bold, "TRAFFIC"))
	for _, i := range a.GetImpacts() {
		mark, color := " ", ""
		if i.GetLosesTraffic() {
			mark, color = "!", red
		}
		p.printf("%s %s\n", p.paint(color, mark), p.paint(color, i.GetText()))
		for _, e := range i.GetExamples() {
			p.printf("      %s\n", e)
		}
	}
	for _, line := range basis(a.GetBasis()) {
		p.printf("  %s\n", line)
	}
	if a.GetDrop() != "" {
		p.printf("\n%s\n", p.paint(red, a.GetDrop()))
	}
	if a.GetLosesTraffic() {
		p.printf("\n%s\n", p.paint(red, "Requests that are answered now would not be any more."))
	}
}

// changeMarks are what stands before a change.
var changeMarks = map[fleetv1.ChangeKind]cell{
	fleetv1.ChangeKind_CHANGE_KIND_ADDED:   {"+", green},
	fleetv1.ChangeKind_CHANGE_KIND_REMOVED: {"-", red},
	fleetv1.ChangeKind_CHANGE_KIND_CHANGED: {"~", yellow},
}

func printChange(p *page, c *fleetv1.Change) {
	mark := changeMarks[c.GetKind()]
	text := c.GetSubject()
	if c.GetDetail() != "" {
		text += ": " + c.GetDetail()
	}
	p.printf("%s %s\n", p.paint(mark.color, mark.text), text)
}

// basis says what was looked at.
func basis(b *fleetv1.PlanBasis) (lines []string) {
	planes := plural(int(b.GetDataPlanes()), "data plane")
	switch {
	case b.GetDataPlanes() == 0:
		return []string{"no traffic has been seen: no data plane has told of its requests, so what would become of them is not known"}
	case b.GetRequestsPerSecond() == 0:
		lines = append(lines, fmt.Sprintf("no requests at the moment, on %s", planes))
	default:
		lines = append(lines, fmt.Sprintf("%s at the moment, on %s", plan.Rate(b.GetRequestsPerSecond()), planes))
	}
	if n := b.GetWithoutSamples(); n > 0 {
		lines = append(lines, fmt.Sprintf("%d of them give no samples", n))
	}
	if b.GetSamples() == 0 {
		return append(lines, "no request of the last 5 minutes was sampled")
	}
	return append(lines, fmt.Sprintf("of %s sampled in the last %s: %s", plural(int(b.GetSamples()), "request"),
		b.GetOver().AsDuration().Round(time.Second), fates(b)))
}

// fates says what would become of the sampled requests.
func fates(b *fleetv1.PlanBasis) string {
	var parts []string
	add := func(share float64, what string) {
		if share > 0 {
			parts = append(parts, plan.Percent(share)+" "+what)
		}
	}
	add(b.GetLost(), "would be lost")
	add(b.GetMoved(), "would be taken by another endpoint")
	add(b.GetUnknown(), "depend on header fields")
	if len(parts) == 0 {
		return "all would go where they go now"
	}
	return strings.Join(parts, ", ")
}

// planResult is the JSON form of a plan.
type planResult struct {
	Version        string       `json:"version"`
	Revision       uint64       `json:"revision"`
	PlannedVersion string       `json:"plannedVersion"`
	Problems       []string     `json:"problems"` // never null, nor are the other lists
	Changes        []planChange `json:"changes"`
	Impacts        []planImpact `json:"impacts"`
	Basis          planBasis    `json:"basis"`
	LosesTraffic   bool         `json:"losesTraffic"`
	Drop           string       `json:"drop"` // why apply would want --force
}

type planChange struct {
	Kind     string `json:"kind"` // added, removed, changed
	Subject  string `json:"subject"`
	Detail   string `json:"detail"`
	Endpoint string `json:"endpoint"`
}

type planImpact struct {
	LosesTraffic bool     `json:"losesTraffic"`
	Text         string   `json:"text"`
	Examples     []string `json:"examples"`
}

// planBasis has shares of the sampled requests, 0 to 1.
type planBasis struct {
	DataPlanes        uint32  `json:"dataplanes"`
	WithoutSamples    uint32  `json:"withoutSamples"`
	RequestsPerSecond float64 `json:"requestsPerSecond"`
	Samples           uint32  `json:"samples"`
	OverSeconds       float64 `json:"overSeconds"`
	Moved             float64 `json:"moved"`
	Lost              float64 `json:"lost"`
	Unknown           float64 `json:"unknown"`
}

func printPlanJSON(env *Env, a *fleetv1.PlanResponse) error {
	b := a.GetBasis()
	x := planResult{
		Version: a.GetVersion(), Revision: a.GetRevision(), PlannedVersion: a.GetPlannedVersion(),
		Problems: append([]string{}, a.GetProblems()...), Changes: []planChange{}, Impacts: []planImpact{},
		Basis: planBasis{
			b.GetDataPlanes(), b.GetWithoutSamples(), b.GetRequestsPerSecond(), b.GetSamples(), b.GetOver().AsDuration().Seconds(),
			b.GetMoved(), b.GetLost(), b.GetUnknown(),
		},
		LosesTraffic: a.GetLosesTraffic(), Drop: a.GetDrop(),
	}
	for _, c := range a.GetChanges() {
		kind := strings.ToLower(strings.TrimPrefix(c.GetKind().String(), "CHANGE_KIND_"))
		x.Changes = append(x.Changes, planChange{kind, c.GetSubject(), c.GetDetail(), c.GetEndpoint()})
	}
	for _, i := range a.GetImpacts() {
		x.Impacts = append(x.Impacts, planImpact{i.GetLosesTraffic(), i.GetText(), append([]string{}, i.GetExamples()...)})
	}
	e := json.NewEncoder(env.Stdout)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(x)
}
