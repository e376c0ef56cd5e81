package plan

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// load is how many requests there are.
type load struct {
	perSecond, recent float64
	dataPlanes        int
}

// any reports whether there are some. What was counted is exact to a half.
func (l load) any() bool { return l.perSecond > 0 || l.recent >= 0.5 }

// size lets requests that come now and then count for a little.
func (l load) size() float64 { return max(l.perSecond, l.recent/300) }

// String is the load for people.
func (l load) String() string {
	on := ""
	if l.dataPlanes > 0 {
		on = " on " + count(l.dataPlanes, "data plane")
	}
	switch {
	case l.perSecond > 0:
		return Rate(l.perSecond) + on
	case l.any():
		return count(int(l.recent+0.5), "request") + " in the last 5 minutes"
	}
	return "no requests have been seen"
}

func count(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return strconv.Itoa(n) + " " + thing
}

// Rate is requests per second for people.
func Rate(perSecond float64) string {
	switch {
	case perSecond >= 10:
		return strconv.FormatFloat(perSecond, 'f', 0, 64) + " req/s"
	case perSecond >= 0.1:
		return strconv.FormatFloat(perSecond, 'f', 1, 64) + " req/s"
	}
	return "less than 0.1 req/s"
}

// Percent is a share for people. What is not all, or not none, is not shown as that.
func Percent(share float64) string {
	switch {
	case share > 0 && share < 0.001:
		return "less than 0.1 %"
	case !whole(share):
		share = min(share, 0.999)
	}
	return strings.TrimSuffix(strconv.FormatFloat(100*share, 'f', 1, 64), ".0") + " %"
}

// whole reports whether a share is all, but for what sums of weights are inexact.
func whole(share float64) bool { return share > 1-1e-9 }

func sorted(set map[string]bool) []string {
	list := make([]string, 0, len(set))
	for s := range set {
		list = append(list, s)
	}
	slices.Sort(list)
	return list
}

func only(set map[string]bool) string { return sorted(set)[0] }

// someOf names endpoints, the first of them.
func someOf(set map[string]bool) string {
	const most = 3
	list := sorted(set)
	if more := len(list) - most; more > 0 {
		return "endpoints " + strings.Join(list[:most], ", ") + fmt.Sprintf(" and %d more", more)
	}
	if len(list) == 1 {
		return "endpoint " + list[0]
	}
	return "endpoints " + strings.Join(list, ", ")
}
