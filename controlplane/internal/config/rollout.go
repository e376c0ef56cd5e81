package config

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"reverseproxy/proto/routetable"
)

// Rollout is how a change of the file goes through the fleet. It is no part of the
// route table.
type Rollout struct {
	// Steps is never empty; the last one is Everybody.
	Steps []Step
	// Canary are labels that the first data planes have; none: any.
	Canary map[string]string
	// Bake is how long a step is watched once its data planes have applied the change.
	Bake time.Duration
	// MinRequests is how many requests a step is judged by, at least.
	MinRequests uint32
	// OnNoTraffic is what happens with fewer: Continue, Pause or Abort.
	OnNoTraffic string
	AbortOn     AbortOn
}

// AbortOn says what takes a change back.
type AbortOn struct {
	// Rejected and Disconnected are numbers of data planes; 0: no number of them.
	Rejected, Disconnected uint32
	// ErrorRate is in percentage points more than on the data planes without the
	// change, LatencyP99 times as much as there.
	ErrorRate, LatencyP99 float64
}

// The values of onNoTraffic.
const (
	Continue = "continue"
	Pause    = "pause"
	Abort    = "abort"
)

var onNoTraffics = []string{Continue, Pause, Abort}

// Step is how many data planes have the change: a number or a part of them.
type Step struct {
	Count   uint32 // 0: it is Percent
	Percent uint32
}

// Everybody is the last step.
var Everybody = Step{Percent: 100}

// String returns the step as in the file.
func (s Step) String() string {
	if s.Count > 0 {
		return strconv.FormatUint(uint64(s.Count), 10)
	}
	return strconv.FormatUint(uint64(s.Percent), 10) + "%"
}

// Of returns how many of so many data planes the step has: at least one.
func (s Step) Of(known int) int {
	if s.Count > 0 {
		return int(s.Count)
	}
	return max(1, (known*int(s.Percent)+99)/100)
}

// AtOnce reports whether there are no steps before everybody's.
func (r Rollout) AtOnce() bool { return len(r.Steps) == 1 }

const (
	maxSteps = 100
	// maxCount is more data planes than a control plane has.
	maxCount       = 1_000_000
	maxMinRequests = 1_000_000_000
	maxFactor      = 1000
)

// Limits of the labels of data planes, as they give them.
const (
	maxLabels     = 64
	maxLabelBytes = 256
)

func defaultRollout() Rollout {
	return Rollout{
		Steps: []Step{Everybody}, Bake: 30 * time.Second, MinRequests: 100, OnNoTraffic: Continue,
		AbortOn: AbortOn{Rejected: 1, Disconnected: 1, ErrorRate: 2, LatencyP99: 2},
	}
}

var (
	abortOnSchema = &schema{key: "abortOn", keys: []*schema{
		{key: "rejected", def: "1"},
		{key: "disconnected", def: "1"},
		{key: "errorRate", def: "2%"},
		{key: "latencyP99", def: "2x"},
	}}
	rolloutSchema = &schema{key: "rollout", keys: []*schema{
		{key: "steps", must: true},
		{key: "canary"},
		{key: "bake", def: "30s"},
		{key: "minRequests", def: "100"},
		{key: "onNoTraffic", def: "continue"},
		abortOnSchema,
	}}
)

func (r *reader) rollout(n node, at *path) {
	o := &r.config.Rollout
	r.mapping(n, at, rolloutSchema, "{steps: [1, 25%, 100%]}", func(key *schema, v node, at *path) {
		switch key.key {
		case "steps":
			r.steps(v, at)
		case "canary":
			r.canary(v, at)
		case "bake":
			if d, ok := r.duration(v, at); ok {
				o.Bake = d
			}
		case "minRequests":
			if i, ok := r.integer(v, at, 1, maxMinRequests); ok {
				o.MinRequests = i
			}
		case "onNoTraffic":
			if word, ok := r.choice(v, at, onNoTraffics); ok {
				o.OnNoTraffic = word
			}
		case "abortOn":
			r.abortOn(v, at)
		default:
			panic("unread key " + key.path)
		}
	})
}

func (r *reader) abortOn(n node, at *path) {
	a := &r.config.Rollout.AbortOn
	r.mapping(n, at, abortOnSchema, "{errorRate: 2%}", func(key *schema, v node, at *path) {
		switch key.key {
		case "rejected":
			if i, ok := r.integer(v, at, 0, maxCount); ok {
				a.Rejected = i
			}
		case "disconnected":
			if i, ok := r.integer(v, at, 0, maxCount); ok {
				a.Disconnected = i
			}
		case "errorRate":
			if f, ok := r.measure(v, at, "%", 0, 100, "percent, such as 2% or 0.5%"); ok {
				a.ErrorRate = f
			}
		case "latencyP99":
			if f, ok := r.measure(v, at, "x", 1, maxFactor, "a factor, such as 2x or 1.5x"); ok {
				a.LatencyP99 = f
			}
		default:
			panic("unread key " + key.path)
		}
	})
}

// measureForm is a number with at most three digits after the point.
var measureForm = regexp.MustCompile(`^(0|[1-9][0-9]{0,5})(\.[0-9]{1,3})?$`)

// measure reads a number with a unit between two bounds.
func (r *reader) measure(n node, at *path, unit string, lowest, highest float64, expected string) (float64, bool) {
	if r.tagged(n, at) {
		return 0, false
	}
	number, has := strings.CutSuffix(n.text(), unit)
	if n.kind() != scalar || n.scalarType() == nullType || !has || !measureForm.MatchString(number) {
		hint := ""
		if number = strings.TrimSpace(number); n.kind() == scalar && measureForm.MatchString(number) {
			hint = fmt.Sprintf(" (did you mean %s%s?)", number, unit)
		}
		r.problem(n, at, "%s, expected %s%s", n.found(), expected, hint)
		return 0, false
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || f < lowest || f > highest {
		r.problem(n, at, "%s is out of range; allowed: %g%s to %g%s", shorten(n.text()), lowest, unit, highest, unit)
		return 0, false
	}
	return f, true
}

func (r *reader) steps(n node, at *path) {
	if n.kind() == list && n.length() == 0 {
		r.problem(n, at, "the list is empty; to have no steps, leave out rollout or write [100%%]")
		return
	}
	var steps []Step
	before := r.problems.added
	if !r.list(n, at, "steps", "write [1, 25%, 100%]", func(n node, at *path) {
		if s, ok := r.step(n, at); ok {
			steps = append(steps, s)
		}
	}) || r.problems.added > before {
		return
	}
	if err := checkSteps(steps); err != nil {
		r.problem(n, at, "%s", err)
		return
	}
	r.config.Rollout.Steps = steps
}

const stepForms = "a number of data planes, such as 1, or a part of them, such as 25%"

func (r *reader) step(n node, at *path) (Step, bool) {
	if r.tagged(n, at) {
		return Step{}, false
	}
	if n.kind() != scalar || n.scalarType() == nullType {
		r.problem(n, at, "%s, expected %s", n.found(), stepForms)
		return Step{}, false
	}
	s, err := parseStep(n.text())
	if err != nil {
		r.problem(n, at, "%s", err)
	}
	return s, err == nil
}

func parseStep(text string) (Step, error) {
	number, percent := strings.CutSuffix(text, "%")
	v, ok := decimal(number)
	switch {
	case !ok:
		return Step{}, fmt.Errorf("found %s, expected %s", quote(text), stepForms)
	case percent && (v < 1 || v > 100):
		return Step{}, fmt.Errorf("%s is out of range; allowed: 1%% to 100%%", quote(text))
	case percent:
		return Step{Percent: uint32(v)}, nil
	case v < 1 || v > maxCount:
		return Step{}, fmt.Errorf("%s is out of range; allowed: 1 to %d data planes, or a part of them, such as 25%%", quote(text), maxCount)
	}
	return Step{Count: uint32(v)}, nil
}

// ParseSteps reads steps that do not come from a file.
func ParseSteps(texts []string) ([]Step, error) {
	var steps []Step
	for _, text := range texts {
		s, err := parseStep(strings.TrimSpace(text))
		if err != nil {
			return nil, err
		}
		steps = append(steps, s)
	}
	return steps, checkSteps(steps)
}

// checkSteps refuses steps that do not lead to everybody. Numbers and parts cannot be
// compared with each other.
func checkSteps(steps []Step) error {
	if len(steps) > maxSteps {
		return fmt.Errorf("there are %d steps, at most %d are allowed", len(steps), maxSteps)
	}
	if len(steps) == 0 || steps[len(steps)-1] != Everybody {
		return errors.New("the last step must be 100%, everybody")
	}
	var last Step
	for _, s := range steps {
		if s.Count > 0 && s.Count <= last.Count || s.Percent > 0 && s.Percent <= last.Percent {
			return fmt.Errorf("step %s is not more than one before it; each step must add data planes", s)
		}
		last.Count, last.Percent = max(last.Count, s.Count), max(last.Percent, s.Percent)
	}
	return nil
}

func (r *reader) canary(n node, at *path) {
	if r.tagged(n, at) {
		return
	}
	if n.kind() != mapping {
		r.problem(n, at, "%s, expected a mapping of labels to values, such as {canary: \"true\"}", n.found())
		return
	}
	labels := map[string]string{}
	r.pairs(n, at, map[string]Position{}, func(key, v node, at *path) {
		value, ok := r.text(v, at, "the value of the label as a text", checkLabel)
		if err := checkLabel(key.text()); err != nil || key.text() == "" {
			r.problem(key, at, "%s is no label", quote(key.text()))
			return
		}
		if ok {
			labels[key.text()] = value
		}
	})
	if len(labels) > maxLabels {
		r.problem(n, at, "there are %d labels, at most %d are allowed", len(labels), maxLabels)
		return
	}
	if len(labels) > 0 {
		r.config.Rollout.Canary = labels
	}
}

func checkLabel(text string) error {
	if len(text) > maxLabelBytes {
		return fmt.Errorf("%s has %d bytes, at most %d are allowed", quote(text), len(text), maxLabelBytes)
	}
	return routetable.CheckHeaderValue(text)
}
