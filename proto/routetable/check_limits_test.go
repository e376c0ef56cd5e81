package routetable_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

func TestValidateLimits(t *testing.T) {
	type endpoint = routetablev1.Endpoint
	rate := func(change func(*routetablev1.RateLimit)) func(*endpoint) {
		return func(e *endpoint) {
			e.RateLimit = &routetablev1.RateLimit{Requests: 10, Per: durationpb.New(time.Second), Burst: 5}
			change(e.RateLimit)
		}
	}
	key := func(kind routetablev1.KeyKind, name string) func(*endpoint) {
		return rate(func(l *routetablev1.RateLimit) { l.Key = &routetablev1.Key{Kind: kind, Name: name} })
	}
	queue := func(most, size uint32) func(*endpoint) {
		return func(e *endpoint) {
			e.MaxRequests, e.Queue = most, &routetablev1.Queue{Size: size, Timeout: durationpb.New(time.Second)}
		}
	}
	for _, tt := range []struct {
		name   string
		change func(*endpoint)
		want   string // the path and part of the message of the only problem; empty: it is valid
	}{
		{"requests in flight", func(e *endpoint) { e.MaxRequests, e.Pool[0].MaxRequests = 1_000_000, 1 }, ""},
		{"requests in flight of an answer", func(e *endpoint) {
			e.MaxRequests, e.Pool = 1, nil
			e.Answer = &routetablev1.Endpoint_Respond{Respond: &routetablev1.Respond{Status: 200}}
		}, "max_requests: is set, but nothing is in flight"},
		{"too many", func(e *endpoint) { e.MaxRequests = 1_000_001 }, "max_requests: 1000001 is out of range"},
		{"too many of a backend", func(e *endpoint) { e.Pool[1].MaxRequests = 1_000_001 }, "pool[1].max_requests: 1000001 is out of range"},
		{"queue", queue(1, 1), ""},
		{"queue for a backend", func(e *endpoint) { queue(0, 1)(e); e.Pool[1].MaxRequests = 1 }, ""},
		{"queue for nothing", queue(0, 1), "queue: has nothing to wait for"},
		{"no queue size", queue(1, 0), "queue.size: 0 is out of range"},
		{"no patience", func(e *endpoint) { queue(1, 1)(e); e.Queue.Timeout = nil }, "queue.timeout: is not set"},
		{"rate", rate(func(*routetablev1.RateLimit) {}), ""},
		{"rate by client", key(routetablev1.KeyKind_KEY_KIND_CLIENT_IP, ""), ""},
		{"rate by header", key(routetablev1.KeyKind_KEY_KIND_HEADER, "x-a"), ""},
		{"no requests", rate(func(l *routetablev1.RateLimit) { l.Requests = 0 }), "rate_limit.requests: 0 is out of range"},
		{"requests", rate(func(l *routetablev1.RateLimit) { l.Requests, l.Per = 1_000_001, durationpb.New(time.Hour) }), "rate_limit.requests: 1000001 is out of range"},
		{"no time", rate(func(l *routetablev1.RateLimit) { l.Per = nil }), "rate_limit.per: is not set"},
		{"long time", rate(func(l *routetablev1.RateLimit) { l.Per = durationpb.New(25 * time.Hour) }), "rate_limit.per: 25h0m0s is out of range"},
		{"too fast", rate(func(l *routetablev1.RateLimit) { l.Per = durationpb.New(time.Microsecond) }), "rate_limit: 10 requests per 1µs are more"},
		{"no burst", rate(func(l *routetablev1.RateLimit) { l.Burst = 0 }), "rate_limit.burst: 0 is out of range"},
		{"no kind", key(0, ""), "rate_limit.key.kind: 0 is not"},
		{"cookie", key(routetablev1.KeyKind_KEY_KIND_COOKIE, "a"), "rate_limit.key.kind: 3 is not"},
		{"client with a name", key(routetablev1.KeyKind_KEY_KIND_CLIENT_IP, "a"), "rate_limit.key.name: is set"},
		{"no header", key(routetablev1.KeyKind_KEY_KIND_HEADER, ""), "rate_limit.key.name: is empty"},
		{"upper-case header", key(routetablev1.KeyKind_KEY_KIND_HEADER, "X-A"), "rate_limit.key.name: \"X-A\" has upper-case letters"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			table := small()
			tt.change(table.Endpoints[1])
			err := routetable.Validate(table)
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.HasPrefix(err.Error(), "endpoints[1]."+tt.want) || strings.Contains(err.Error(), "\n")):
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}
