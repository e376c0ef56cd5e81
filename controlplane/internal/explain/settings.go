package explain

import (
	"fmt"
	"strings"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

// settings says what an endpoint does beyond handing the request to the next
// backend, a line for each feature that is set.
func settings(e *routetablev1.Endpoint) (lines []string) {
	for _, feature := range [...]func(*routetablev1.Endpoint) string{loadBalancing, backups, onPanic, activeCheck, passiveCheck, requestTimeout, retry, maxRequests, rateLimit, rewrite, requestHeaders, responseHeaders} {
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

func retry(e *routetablev1.Endpoint) string {
	r := e.GetRetry()
	if r == nil {
		return ""
	}
	var on []string
	for _, failure := range r.GetOn() {
		on = append(on, failures[failure])
	}
	each := ""
	if t := r.GetPerTryTimeout(); t != nil {
		each = fmt.Sprintf(" of %s at most", t.AsDuration())
	}
	return fmt.Sprintf("retry: %d attempts%s, on %s; budget %d%%", r.GetAttempts(), each, strings.Join(on, ", "), r.GetBudgetPercent())
}

// failures are what requests are sent again for, as in the file.
var failures = map[routetablev1.RetryOn]string{
	routetablev1.RetryOn_RETRY_ON_CONNECT_FAILURE: "connectFailure",
	routetablev1.RetryOn_RETRY_ON_RESET:           "reset",
	routetablev1.RetryOn_RETRY_ON_TIMEOUT:         "timeout",
	routetablev1.RetryOn_RETRY_ON_502:             "502",
	routetablev1.RetryOn_RETRY_ON_503:             "503",
	routetablev1.RetryOn_RETRY_ON_504:             "504",
}
