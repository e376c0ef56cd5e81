package explain

import (
	"fmt"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

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
