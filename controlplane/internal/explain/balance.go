package explain

import (
	"fmt"
	"strings"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

var policies = map[routetablev1.Policy]string{
	routetablev1.Policy_POLICY_UNSPECIFIED:     "RoundRobin",
	routetablev1.Policy_POLICY_LEAST_REQUEST:   "LeastRequest",
	routetablev1.Policy_POLICY_RANDOM:          "Random",
	routetablev1.Policy_POLICY_CONSISTENT_HASH: "ConsistentHash",
}

func loadBalancing(e *routetablev1.Endpoint) string {
	l := e.GetLoadBalancing()
	if l == nil {
		return ""
	}
	line := "load balancing: " + policies[l.GetPolicy()]
	if l.GetKey() != nil {
		line += " on " + key(l.GetKey())
	}
	if l.GetSlowStart() != nil {
		line += fmt.Sprintf(", slow start over %s", l.GetSlowStart().AsDuration())
	}
	return line
}

// key names a property of a request, as in the file.
func key(k *routetablev1.Key) string {
	switch k.GetKind() {
	case routetablev1.KeyKind_KEY_KIND_CLIENT_IP:
		return "clientIP"
	case routetablev1.KeyKind_KEY_KIND_HEADER:
		return "header:" + k.GetName()
	case routetablev1.KeyKind_KEY_KIND_COOKIE:
		return "cookie:" + k.GetName()
	}
	return "path"
}

func backups(e *routetablev1.Endpoint) string {
	var urls []string
	for _, b := range e.GetPool() {
		if b.GetBackup() {
			urls = append(urls, b.GetUrl())
		}
	}
	if len(urls) == 0 {
		return ""
	}
	return "only when no other can be used: " + strings.Join(urls, ", ")
}

func onPanic(e *routetablev1.Endpoint) string {
	if !e.GetRefuseWhenUnhealthy() {
		return ""
	}
	return "when no backend is healthy: 503"
}
