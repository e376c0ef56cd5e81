package explain

import (
	"fmt"
	"strconv"
	"strings"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

func maxRequests(e *routetablev1.Endpoint) string {
	var limits []string
	if most := e.GetMaxRequests(); most > 0 {
		limits = append(limits, strconv.Itoa(int(most)))
	}
	for _, b := range e.GetPool() {
		if most := b.GetMaxRequests(); most > 0 {
			limits = append(limits, fmt.Sprintf("%d to %s", most, b.GetUrl()))
		}
	}
	if len(limits) == 0 {
		return ""
	}
	line := "max requests: " + strings.Join(limits, ", ") + " in flight on each data plane"
	if q := e.GetQueue(); q != nil {
		line += fmt.Sprintf("; %d more wait for up to %s", q.GetSize(), q.GetTimeout().AsDuration())
	}
	return line
}

func rateLimit(e *routetablev1.Endpoint) string {
	l := e.GetRateLimit()
	if l == nil {
		return ""
	}
	line := fmt.Sprintf("rate limit: %d requests per %s, %d at once", l.GetRequests(), l.GetPer().AsDuration(), l.GetBurst())
	switch k := l.GetKey(); k.GetKind() {
	case routetablev1.KeyKind_KEY_KIND_CLIENT_IP:
		line += ", for each client address"
	case routetablev1.KeyKind_KEY_KIND_HEADER:
		line += ", for each value of " + k.GetName()
	}
	return line + "; over the whole fleet"
}
