package reconcile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

// shownNear is how many names an error offers for one that there is not.
const shownNear = 3

// NoEndpoint says that there is no endpoint with a name.
func NoEndpoint(name string, t *routetablev1.RouteTable) string {
	names := map[string]bool{}
	for _, e := range t.GetEndpoints() {
		names[e.GetName()] = true
	}
	return fmt.Sprintf("no endpoint is named %s%s", name, nearTo(name, names))
}

// nearTo offers those of some texts that are most like one.
func nearTo(text string, others map[string]bool) string {
	if len(others) == 0 {
		return ""
	}
	type near struct {
		text   string
		shared int
	}
	var list []near
	for other := range others {
		list = append(list, near{other, shared(other, text)})
	}
	slices.SortFunc(list, func(a, b near) int { return cmp.Or(cmp.Compare(b.shared, a.shared), strings.Compare(a.text, b.text)) })
	var best []string
	for _, n := range list[:min(len(list), shownNear)] {
		best = append(best, n.text)
	}
	return "; did you mean " + strings.Join(best, " or ") + "?"
}

// shared is the length of what two texts have in common at both ends.
func shared(a, b string) int {
	start := 0
	for start < min(len(a), len(b)) && a[start] == b[start] {
		start++
	}
	a, b = a[start:], b[start:]
	end := 0
	for end < min(len(a), len(b)) && a[len(a)-1-end] == b[len(b)-1-end] {
		end++
	}
	return start + end
}
