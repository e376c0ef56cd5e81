// Package config turns the bytes of a configuration file into a Config and
// reports all that is wrong with them in one go. It is pure: no files, sockets,
// clocks or loggers. Package source yields the bytes, package compile takes the
// Config.
//
// The file is YAML 1.2 with anchors, aliases and merge keys (<<), read strictly:
// one document, no unknown or duplicate keys, no value of another type than the
// schema asks for. What a route table may contain is not decided here but in
// package routetable, which the data planes obey as well.
package config

import (
	"slices"
	"time"

	"reverseproxy/proto/routetable"
)

// Config is a configuration file that was read and checked. Optional keys that
// the file leaves out have their defaults, except in endpoints, where a zero
// value means "as in Defaults".
type Config struct {
	// Port is the TCP port on which every data plane listens for HTTP.
	Port uint16
	// Defaults are inherited by every endpoint.
	Defaults Defaults
	// Endpoints are in the order of the file.
	Endpoints []Endpoint
	// MetricsOnProxyPort lets GET /metrics on the proxy port answer with the
	// data plane's metrics.
	MetricsOnProxyPort bool
	// Limits bound what clients may send and hold.
	Limits Limits
	// AccessLog says what is written about requests; with an empty Path, nothing.
	AccessLog AccessLog
	// RequestID gives every request an X-Request-Id.
	RequestID bool
	// TrustedProxies are the address prefixes of proxies in front, in canonical form,
	// sorted.
	TrustedProxies []string
	// ProxyProtocol makes every client connection begin with a header of the PROXY
	// protocol.
	ProxyProtocol bool
	// ResolveInterval is the time from one lookup of a backend's name to the next.
	ResolveInterval time.Duration
	// Tests are requests and what is to become of them, in the order of the file.
	Tests []Test
	// Rollout is how a change of the file goes through the fleet.
	Rollout Rollout
	// AcknowledgeDrop is the beginning of the version of the route table that
	// may lose most of its endpoints to this file: at least 8 hexadecimal
	// digits in lower case, or empty.
	AcknowledgeDrop string
}

// Defaults are the settings that an endpoint inherits.
type Defaults struct {
	Timeouts     Timeouts
	PreserveHost bool
	MaxRequests  uint32 // in flight; 0: any number
	Queue        Queue  // all is set
	RateLimit    RateLimit
	// Panic is UseAll or Refuse: what happens when no backend is healthy.
	Panic         string
	LoadBalancing LoadBalancing
	Retry         Retry
	// RequestHeaders and ResponseHeaders are joined with those of an endpoint, except
	// for what concerns a header that the endpoint's name too; nil: none.
	RequestHeaders, ResponseHeaders *HeaderEdits
	HealthCheck                     HealthCheck
}

// Unlimited is the Timeouts.Request, or Retry.PerTryTimeout, that is none.
const Unlimited time.Duration = -1

// Timeouts bound the exchange with a backend. Zero means "as in Defaults"; in
// Defaults all are set.
type Timeouts struct {
	// Connect bounds the opening of a connection.
	Connect time.Duration
	// Response bounds the time from the end of the request until the head of
	// the response.
	Response time.Duration
	// Idle is the longest silence while a body or a tunnel is transferred, and
	// how long an unused connection to a backend is kept.
	Idle time.Duration
	// Request bounds the time from the end of the request's head until the end
	// of the response; it may be Unlimited.
	Request time.Duration
}

// Retry says when a request that failed is sent again. Zero means "as in
// Defaults"; in Defaults all are set.
type Retry struct {
	// Attempts in all, the first included; with 1, nothing is sent again.
	Attempts uint32
	// On has the failures, as in the file, sorted.
	On []string
	// PerTryTimeout bounds an attempt until the head of its response; it may be
	// Unlimited.
	PerTryTimeout time.Duration
	// BudgetPercent is how many retries there may be in percent of the requests.
	BudgetPercent uint32
}

// Limits bound what clients may send and hold. All are set.
type Limits struct {
	MaxHeadBytes   uint32        // longest request head, in bytes
	MaxHeaders     uint32        // most header fields of a request
	MaxURIBytes    uint32        // longest request target, in bytes
	HeaderTimeout  time.Duration // for a complete request head
	IdleTimeout    time.Duration // between two requests of a connection
	MaxConnections uint32        // client connections of one data plane
}

// AccessLog is a line for each request.
type AccessLog struct {
	// Path of a file on the machines of the data planes, or routetable.Stdout.
	Path string
	// Format is one of "json", "common" and "combined".
	Format string
	// SamplePerMillion is how many of a million requests are logged: 1 to
	// routetable.SamplePerMillion.
	SamplePerMillion uint32
}

// Endpoint is one entry of endpoints.
type Endpoint struct {
	// Position of the entry in the file.
	Position
	// Name is unique: the given one, or else derived from hosts, path and
	// conditions.
	Name string
	// Path in normal form. A prefix matches itself and everything below it and
	// has no slash at its end.
	Path   string
	Prefix bool
	// Hosts are host patterns in lower case, sorted; none: any host.
	Hosts []string
	// Methods that match, sorted; none: any.
	Methods []string
	// Headers must all be there; sorted by name.
	Headers []Header
	// Pool has at least one backend, unless Redirect or Respond is set.
	Pool []Backend
	// Redirect or Respond is what the data plane itself answers; nil: it does not.
	Redirect *Redirect
	Respond  *Respond
	// RequestHeaders and ResponseHeaders are beside the defaults; nil: nothing is.
	RequestHeaders, ResponseHeaders *HeaderEdits
	// Rewrite is what becomes of the path; nil: nothing does.
	Rewrite *Rewrite
	// Timeouts that differ from the defaults.
	Timeouts Timeouts
	// PreserveHost sends the client's Host to the backend; nil: as in Defaults.
	PreserveHost *bool
	// MaxRequests is how many may be in flight; nil: as in Defaults.
	MaxRequests *uint32
	// Queue that differs from the defaults.
	Queue Queue
	// RateLimit in place of that of the defaults; nil: as in Defaults.
	RateLimit *RateLimit
	// Panic is UseAll or Refuse; empty: as in Defaults.
	Panic string
	// LoadBalancing takes the place of that in Defaults; nil: as there.
	LoadBalancing *LoadBalancing
	// Retry as far as it differs from the defaults.
	Retry Retry
	// HealthCheck takes the place of that of Defaults as a whole; nil: as there.
	HealthCheck *HealthCheck
}

// Header is a header field. As a condition it has a name in lower case and means
// that a field has exactly this value; elsewhere the value may have variables.
type Header struct {
	Name, Value string
}

// HeaderEdits are changes to header fields, each list sorted by name without regard
// to letter case. Names to remove are in lower case.
type HeaderEdits struct {
	Set, Add []Header
	Remove   []string
}

// Rewrite is a change of the path; one of Path, Prefix and Match is set.
type Rewrite struct {
	Path, Prefix   string
	Match, Replace string
}

// Redirect sends clients elsewhere.
type Redirect struct {
	To     string
	Status uint32
}

// Respond is a fixed answer.
type Respond struct {
	Status  uint32
	Body    string
	Headers []Header
}

// Backend is one URL of a pool.
type Backend struct {
	URL    string
	Weight uint32
	// Backup: it is used only when no other can be.
	Backup bool
	// MaxRequests is how many may be in flight; 0: any number.
	MaxRequests uint32
}

// builtin is the configuration of a file that sets no optional key. The schema
// repeats these values for the documentation; a test compares them.
func builtin() Config {
	return Config{
		Defaults: Defaults{
			Timeouts:     Timeouts{Connect: time.Second, Response: 30 * time.Second, Idle: 90 * time.Second, Request: Unlimited},
			PreserveHost: true,
			Queue:        Queue{Size: new(uint32), Timeout: time.Second},
			RateLimit:    RateLimit{Per: time.Second},
			Panic:        UseAll,
			Retry:        Retry{Attempts: 1, On: canonical(slices.Clone(failures)), PerTryTimeout: Unlimited, BudgetPercent: 20},
		},
		MetricsOnProxyPort: true,
		Limits: Limits{
			MaxHeadBytes:   64 << 10,
			MaxHeaders:     100,
			MaxURIBytes:    8 << 10,
			HeaderTimeout:  10 * time.Second,
			IdleTimeout:    60 * time.Second,
			MaxConnections: 10_000,
		},
		AccessLog:       AccessLog{Format: "json", SamplePerMillion: routetable.SamplePerMillion},
		ResolveInterval: routetable.DefaultResolveInterval,
		Rollout:         defaultRollout(),
	}
}

// Load reads a configuration file. The name is used in problems only. The error
// is an *Errors with every problem of the file.
func Load(name string, data []byte) (*Config, error) {
	r := &reader{config: builtin()}
	root, problem := parse(data)
	if problem != nil {
		r.problems.add(*problem)
	} else {
		r.file(root)
	}
	if err := r.problems.errors(name, data); err != nil {
		return nil, err
	}
	return &r.config, nil
}
