// Package compile turns a configuration into the route table that is sent to
// the data planes, and guards against updates that lose most endpoints. It is
// pure: no files, sockets, clocks or loggers.
//
// The table depends on what the file means, not on how it is written: order of
// endpoints, formatting, comments, anchors and defaults written out give the
// same table and so the same version.
package compile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"

	"reverseproxy/controlplane/internal/config"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// Compile returns the route table of a configuration: defaults resolved,
// endpoints sorted by name. Its version is routetable.Version of it.
//
// The table keeps every rule of routetable.Validate. A configuration that
// config.Load returned always compiles; an error means that it was made
// otherwise, or that the two packages disagree, and then no data plane must get
// the table. The configuration is not changed; the table shares its slices, and
// parts of the table are shared within it: neither may be changed afterwards.
func Compile(c *config.Config) (*routetablev1.RouteTable, error) {
	t := &routetablev1.RouteTable{
		Port:                   uint32(c.Port),
		HideMetricsOnProxyPort: !c.MetricsOnProxyPort,
		Endpoints:              make([]*routetablev1.Endpoint, 0, len(c.Endpoints)),
		Limits: &routetablev1.Limits{
			MaxHeadBytes:   c.Limits.MaxHeadBytes,
			MaxHeaderCount: c.Limits.MaxHeaders,
			MaxUriBytes:    c.Limits.MaxURIBytes,
			HeaderTimeout:  durationpb.New(c.Limits.HeaderTimeout),
			IdleTimeout:    durationpb.New(c.Limits.IdleTimeout),
			MaxConnections: c.Limits.MaxConnections,
		},
		RequestId:      c.RequestID,
		TrustedProxies: c.TrustedProxies,
		ProxyProtocol:  c.ProxyProtocol,
	}
	if l := &c.AccessLog; l.Path != "" {
		t.AccessLog = &routetablev1.AccessLog{
			Path: l.Path, Format: logFormats[l.Format], SamplePerMillion: l.SamplePerMillion,
		}
	}
	timeouts, retries := timeoutsCache{}, newRetries(c.Defaults.Retry)
	if c.ResolveInterval != routetable.DefaultResolveInterval {
		t.ResolveInterval = durationpb.New(c.ResolveInterval)
	}
	for i := range c.Endpoints {
		t.Endpoints = append(t.Endpoints, endpoint(&c.Endpoints[i], &c.Defaults, timeouts, retries))
	}
	slices.SortFunc(t.Endpoints, func(a, b *routetablev1.Endpoint) int { return strings.Compare(a.GetName(), b.GetName()) })
	if err := routetable.Validate(t); err != nil {
		return nil, fmt.Errorf("the configuration makes an invalid route table: %w", err)
	}
	return t, nil
}

var logFormats = map[string]routetablev1.AccessLogFormat{
	"json":     routetablev1.AccessLogFormat_ACCESS_LOG_FORMAT_JSON,
	"common":   routetablev1.AccessLogFormat_ACCESS_LOG_FORMAT_COMMON,
	"combined": routetablev1.AccessLogFormat_ACCESS_LOG_FORMAT_COMBINED,
}

func endpoint(e *config.Endpoint, defaults *config.Defaults, timeouts timeoutsCache, retries *retries) *routetablev1.Endpoint {
	out := e.Conditions()
	out.Name = e.Name
	out.Timeouts = timeouts.get(resolve(e.Timeouts, defaults.Timeouts))
	preserve := defaults.PreserveHost
	if e.PreserveHost != nil {
		preserve = *e.PreserveHost
	}
	out.ReplaceHost = !preserve
	limits(out, e, defaults)
	balance(out, e, defaults)
	out.Retry = retries.get(&e.Retry)
	answers(out, e)
	edits(out, e, defaults)
	healthCheck(out, cmp.Or(e.HealthCheck, &defaults.HealthCheck))
	// One allocation for the pool, as there are many.
	backends := make([]routetablev1.Backend, len(e.Pool))
	out.Pool = make([]*routetablev1.Backend, len(e.Pool))
	for i, b := range e.Pool {
		backends[i].Url, backends[i].Weight, backends[i].Backup, backends[i].MaxRequests = b.URL, b.Weight, b.Backup, b.MaxRequests
		out.Pool[i] = &backends[i]
	}
	if out.Answer != nil {
		withoutPool(out)
	}
	return out
}

// resolve fills in what an endpoint leaves to the defaults.
func resolve(t, defaults config.Timeouts) config.Timeouts {
	if t.Connect == 0 {
		t.Connect = defaults.Connect
	}
	if t.Response == 0 {
		t.Response = defaults.Response
	}
	if t.Idle == 0 {
		t.Idle = defaults.Idle
	}
	if t.Request == 0 {
		t.Request = defaults.Request
	}
	return t
}

// timeoutsCache lets endpoints with equal timeouts share one message: most do.
type timeoutsCache map[config.Timeouts]*routetablev1.Timeouts

func (c timeoutsCache) get(t config.Timeouts) *routetablev1.Timeouts {
	out, ok := c[t]
	if !ok {
		out = &routetablev1.Timeouts{
			Connect:  durationpb.New(t.Connect),
			Response: durationpb.New(t.Response),
			Idle:     durationpb.New(t.Idle),
		}
		if t.Request > 0 {
			out.Request = durationpb.New(t.Request)
		}
		c[t] = out
	}
	return out
}
