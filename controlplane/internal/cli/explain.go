package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"reverseproxy/controlplane/internal/compile"
	"reverseproxy/controlplane/internal/config"
	"reverseproxy/controlplane/internal/explain"
	fleetv1 "reverseproxy/proto/fleet/v1"
)

var explainCommand = &command{
	name:    "explain",
	args:    "URL",
	summary: "Say which endpoint takes a request, what backends would be sent, why the others do not match",
	more: `
URL is http://host/path as a client would ask for it, or a path alone. The flags
are curl's. Without --config the running control plane is asked.`,
	setUp: setUpExplain,
}

func setUpExplain(env *Env, flags *pflag.FlagSet) func(context.Context, []string) error {
	var r remote
	output := outputFormat("table")
	file := flags.String("config", "", "explain by this `file` instead of the running configuration")
	method := flags.StringP("request", "X", http.MethodGet, "`method` of the request")
	headers := flags.StringArrayP("header", "H", nil, "`'Name: value'`, repeatable; Host replaces the URL's")
	r.flags(env, flags)
	flags.VarP(&output, "output", "o", "for people or for scripts")
	return func(ctx context.Context, args []string) error {
		if len(args) != 1 {
			return usagef("one URL is expected, such as http://shop.example.com/index, but there are %d", len(args))
		}
		q := &fleetv1.ExplainRequest{Method: *method, Url: args[0]}
		for _, h := range *headers {
			name, value, ok := strings.Cut(h, ":")
			if !ok {
				return usagef("-H %q is not 'Name: value'", h)
			}
			q.Headers = append(q.Headers, &fleetv1.Header{Name: strings.TrimSpace(name), Value: strings.TrimSpace(value)})
		}
		if err := explain.Check(q); err != nil {
			return usagef("%v", err)
		}
		a, err := answerFor(ctx, env, &r, *file, q)
		if err != nil {
			return err
		}
		if output == "json" {
			return printExplanationJSON(env, a)
		}
		printExplanation(newPage(env), q, a)
		return nil
	}
}

// answerFor explains by a file, or asks the running control plane.
func answerFor(ctx context.Context, env *Env, r *remote, file string, q *fleetv1.ExplainRequest) (*fleetv1.ExplainResponse, error) {
	if file != "" {
		name, data, err := readConfig(env, file)
		if err != nil {
			return nil, err
		}
		cfg, err := config.Load(name, data)
		if err != nil {
			return nil, err
		}
		rt, err := compile.Compile(cfg) // its tests may fail: why is asked here
		if err != nil {
			return nil, err
		}
		return explain.Explain(rt, q)
	}
	if err := r.dial(); err != nil {
		return nil, err
	}
	defer r.close()
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	a, err := r.fleet.Explain(ctx, q)
	return a, r.explainError(err)
}

// printExplanation prints the answer for people.
func printExplanation(p *page, q *fleetv1.ExplainRequest, a *fleetv1.ExplainResponse) {
	p.printf("%s %s\n", q.GetMethod(), q.GetUrl())
	switch {
	case a.GetStatus() == http.StatusOK && a.GetEndpoint() == "":
		p.printf("  -> %s: the data plane's own metrics; no endpoint matches\n", p.paint(green, "200 OK"))
	case a.GetEndpoint() != "":
		p.printf("  -> endpoint %s\n", p.paint(green, a.GetEndpoint()))
		switch {
		case a.GetStatus() == 0:
		case len(a.GetBackends()) > 0:
			p.printf("     %s: %s\n", p.paint(red, statusText(a.GetStatus())), unused(a.GetBackends()))
		default:
			p.printf("     %s: the data plane answers by itself\n", statusText(a.GetStatus()))
		}
		for _, line := range a.GetSettings() {
			p.printf("     %s\n", line)
		}
	default:
		p.printf("  -> %s: %s\n", p.paint(red, statusText(a.GetStatus())), whyNot(a))
	}
	if len(a.GetBackends()) > 0 {
		p.printf("\n")
		rows := make([][]cell, 0, len(a.GetBackends()))
		for _, b := range a.GetBackends() {
			weight := strconv.FormatUint(uint64(b.GetWeight()), 10)
			if b.GetDraining() {
				weight += " (drained)"
			}
			rows = append(rows, []cell{
				{text: b.GetUrl()}, {text: weight},
				{text: b.GetHost()}, {text: b.GetRequestLine()},
			})
		}
		p.table([]string{"BACKEND", "WEIGHT", "HOST", "IS SENT"}, rows)
	}
	if len(a.GetMismatches()) == 0 {
		return
	}
	p.printf("\n")
	rows := make([][]cell, 0, len(a.GetMismatches()))
	for _, m := range a.GetMismatches() {
		rows = append(rows, []cell{{text: m.GetEndpoint()}, {text: m.GetReason()}})
	}
	title := "OTHER ENDPOINT"
	if a.GetEndpoint() == "" {
		title = "ENDPOINT"
	}
	p.table([]string{title, "WHY NOT"}, rows)
	if n := a.GetMismatchesOmitted(); n > 0 {
		p.printf("and %d more\n", n)
	}
}

func statusText(code uint32) string { return fmt.Sprintf("%d %s", code, http.StatusText(int(code))) }

// unused says why none of the backends gets a request.
func unused(backends []*fleetv1.BackendRequest) string {
	kept := slices.ContainsFunc(backends, func(b *fleetv1.BackendRequest) bool { return !b.GetDraining() })
	drained := slices.ContainsFunc(backends, (*fleetv1.BackendRequest).GetDraining)
	switch {
	case !kept:
		return "every backend is drained"
	case !drained:
		return "every backend has weight 0"
	default:
		return "every backend is drained or has weight 0"
	}
}

// whyNot says what an answer of the proxy itself means.
func whyNot(a *fleetv1.ExplainResponse) string {
	switch a.GetStatus() {
	case http.StatusBadRequest:
		return "the path is not valid, or it climbs above the root"
	case http.StatusMethodNotAllowed:
		return "the path is taken with " + strings.Join(a.GetAllow(), ", ")
	default:
		return "no endpoint matches"
	}
}

// explanation is the JSON form of an answer.
type explanation struct {
	Status            uint32           `json:"status"`          // of the proxy's own answer; 0: a backend answers
	Allow             []string         `json:"allow,omitempty"` // with status 405
	Endpoint          string           `json:"endpoint"`
	Settings          []string         `json:"settings,omitempty"` // for people
	Backends          []backendRequest `json:"backends"`
	Mismatches        []mismatch       `json:"mismatches"`
	MismatchesOmitted uint32           `json:"mismatchesOmitted"`
}

type backendRequest struct {
	URL         string `json:"url"`
	Weight      uint32 `json:"weight"`
	Draining    bool   `json:"draining"`
	RequestLine string `json:"requestLine"`
	Host        string `json:"host"`
}

type mismatch struct {
	Endpoint string `json:"endpoint"`
	Reason   string `json:"reason"`
}

func printExplanationJSON(env *Env, a *fleetv1.ExplainResponse) error {
	x := explanation{
		Status: a.GetStatus(), Allow: a.GetAllow(), Endpoint: a.GetEndpoint(), Settings: a.GetSettings(),
		Backends: []backendRequest{}, Mismatches: []mismatch{}, MismatchesOmitted: a.GetMismatchesOmitted(),
	}
	for _, b := range a.GetBackends() {
		x.Backends = append(x.Backends, backendRequest{b.GetUrl(), b.GetWeight(), b.GetDraining(), b.GetRequestLine(), b.GetHost()})
	}
	for _, m := range a.GetMismatches() {
		x.Mismatches = append(x.Mismatches, mismatch{m.GetEndpoint(), m.GetReason()})
	}
	e := json.NewEncoder(env.Stdout)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(x)
}
