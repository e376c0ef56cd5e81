package compile

import (
	"cmp"

	"google.golang.org/protobuf/types/known/durationpb"

	"reverseproxy/controlplane/internal/config"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// limits fills in how much an endpoint may take.
func limits(out *routetablev1.Endpoint, e *config.Endpoint, defaults *config.Defaults) {
	out.MaxRequests = defaults.MaxRequests
	if e.MaxRequests != nil {
		out.MaxRequests = *e.MaxRequests
	}
	size := *defaults.Queue.Size
	if e.Queue.Size != nil {
		size = *e.Queue.Size
	}
	if size > 0 && e.Limited(defaults) {
		out.Queue = &routetablev1.Queue{Size: size, Timeout: durationpb.New(cmp.Or(e.Queue.Timeout, defaults.Queue.Timeout))}
	}
	out.RateLimit = rateLimit(e, defaults)
}

// rateLimit returns nil when any number of requests may come.
func rateLimit(e *config.Endpoint, defaults *config.Defaults) *routetablev1.RateLimit {
	l := &defaults.RateLimit
	if e.RateLimit != nil {
		l = e.RateLimit
	}
	if l.Requests == 0 {
		return nil
	}
	out := &routetablev1.RateLimit{Requests: l.Requests, Per: durationpb.New(l.Per), Burst: cmp.Or(l.Burst, l.Requests)}
	switch {
	case l.ByClient:
		out.Key = &routetablev1.Key{Kind: routetablev1.KeyKind_KEY_KIND_CLIENT_IP}
	case l.ByHeader != "":
		out.Key = &routetablev1.Key{Kind: routetablev1.KeyKind_KEY_KIND_HEADER, Name: l.ByHeader}
	}
	return out
}
