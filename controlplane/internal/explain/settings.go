package explain

import (
	"fmt"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

// settings says what an endpoint does beyond handing the request to the next
// backend, a line for each feature that is set.
func settings(e *routetablev1.Endpoint) (lines []string) {
	for _, feature := range [...]func(*routetablev1.Endpoint) string{loadBalancing, backups, onPanic, requestTimeout, rateLimit} {
		if line := feature(e); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

func requestTimeout(e *routetablev1.Endpoint) string {
	limit := e.GetTimeouts().GetRequest()
	if limit == nil {
		return ""
	}
	return fmt.Sprintf("request timeout: %s for the whole request", limit.AsDuration())
}
