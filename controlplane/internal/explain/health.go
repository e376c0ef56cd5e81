package explain

import (
	"fmt"
	"strings"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

func activeCheck(e *routetablev1.Endpoint) string {
	c := e.GetActiveCheck()
	if c == nil {
		return ""
	}
	what := "a connection"
	if !c.GetTcp() {
		what = fmt.Sprintf("%s %s, expecting %s", c.GetMethod(), c.GetPath(), statuses(c.GetExpectStatus()))
	}
	return fmt.Sprintf("active check: %s, every %s with %s to answer; unhealthy after %d failures, healthy after %d successes",
		what, c.GetInterval().AsDuration(), c.GetTimeout().AsDuration(), c.GetUnhealthyAfter(), c.GetHealthyAfter())
}

// statuses writes ranges of statuses for people.
func statuses(ranges []*routetablev1.StatusRange) string {
	texts := make([]string, len(ranges))
	for i, r := range ranges {
		texts[i] = fmt.Sprint(r.GetFirst())
		if r.GetLast() != r.GetFirst() {
			texts[i] += fmt.Sprintf("-%d", r.GetLast())
		}
	}
	return strings.Join(texts, ", ")
}

func passiveCheck(e *routetablev1.Endpoint) string {
	c := e.GetPassiveCheck()
	if c == nil {
		return ""
	}
	failures := "failures"
	if c.GetOn_5Xx() {
		failures = "failures or answers of 500 or more"
	}
	return fmt.Sprintf("passive check: ejected for %s after %d %s in a row, at most %d%% of the pool",
		c.GetEjectFor().AsDuration(), c.GetConsecutiveFailures(), failures, c.GetMaxEjectedPercent())
}
