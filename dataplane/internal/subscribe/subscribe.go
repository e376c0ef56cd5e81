// Package subscribe keeps the data plane on the newest route table. It opens the
// one stream to a control plane, joins the chunks of a table, has it verified
// and put in force by package activate, keeps it on disk, and reports what
// became of it. When a control plane is lost the next one is tried at once. Without
// any, it serves the table of the last run and goes on trying, one address after the
// other, with jittered back-off.
//
// Three goroutines work while a stream is open, and none waits for another: one
// reads, one writes, and one applies tables, because an activation may take
// longer than a control plane may stay silent.
package subscribe

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"reverseproxy/dataplane/internal/activate"
	"reverseproxy/dataplane/internal/limit"
	"reverseproxy/dataplane/internal/metrics"
	"reverseproxy/dataplane/internal/sample"
	"reverseproxy/proto/identity"
)

// Options say who subscribes, and where. The zero durations mean the defaults.
type Options struct {
	// ControlPlanes are tried in a random order, host:port each; at least one. See
	// CheckAddress.
	ControlPlanes []string
	// Certificates are for mutual TLS; nil: the streams are plaintext.
	Certificates *identity.Certificates
	// ID and Labels name the data plane; valid UTF-8.
	ID     string
	Labels map[string]string
	// Build is the program's version.
	Build string
	// AdminAddress is where the admin server listens.
	AdminAddress string
	// Activator puts tables in force.
	Activator *activate.Activator
	// Store keeps the newest table.
	Store *Store
	// Quietly does the work of applying a table that is so many bytes large when it
	// is unpacked, and returns when it is done; nil: nothing special is made of it.
	Quietly func(size uint64, work func())
	// Fleet is told how many data planes there are; nil: nobody is.
	Fleet *limit.Fleet
	// Place is where the data plane's place among the others is stored; nil: nobody
	// wants to know.
	Place *atomic.Uint32
	// Metrics are what is reported about requests.
	Metrics *metrics.Set
	// Samples are what some of them look like, which is reported as well; nil: it is
	// not.
	Samples *sample.Set
	Log     *slog.Logger

	// Heartbeat is the time between two heartbeats; 5 s. As often is a table tried
	// again that could not be written to disk, or whose port is taken while nothing
	// else is served.
	Heartbeat time.Duration
	// Pulse is the time between two signs of life that are asked for when there is
	// another control plane to go to; 1.5 s. One costs a control plane 45 µs
	// (BenchmarkHeartbeat in its package fleet): 10,000 data planes on two of them take
	// 15 % of a core of each.
	Pulse time.Duration
	// Silence is how long a control plane may take to connect and to answer a
	// heartbeat; 3 s, or with several control planes 1.5 s: one that hangs is noticed
	// in Pulse and Silence together.
	Silence time.Duration
	// FirstDelay and MaxDelay bound the pause between two connections once every
	// control plane has been tried: it starts with the first, grows by 1.6 and is
	// scattered by half; 200 ms and 5 s.
	FirstDelay, MaxDelay time.Duration
}

// Subscriber is the data plane's side of the protocol. Restore and Run are called
// once, in this order; it is a prometheus.Collector at any time.
type Subscriber struct {
	o Options
	// Each has one slot: the newest replaces one that has not begun. What is held has
	// one of its own, because it says nothing about what is to be in force.
	tasks chan task
	holds chan held

	// The applying goroutine's own: unsaved is the table in force while it could
	// not be written; waiting is a table that could not be put in force only because its port was
	// taken, while nothing is served.
	unsaved *offer
	waiting *task
	// refused is the version that was refused last, and why.
	refused string
	// ready is the table that is prepared, nil when none is.
	ready *offer
	// placed is the place that is on disk.
	placed uint32

	connected     atomic.Bool
	lastContact   atomic.Int64 // Unix milliseconds; 0 is never
	storeFailures atomic.Uint64
}

// New returns a subscriber that has not begun.
func New(o Options) *Subscriber {
	o.Heartbeat = orDefault(o.Heartbeat, 5*time.Second)
	o.Pulse = orDefault(o.Pulse, 1500*time.Millisecond)
	if len(o.ControlPlanes) > 1 {
		o.Silence = orDefault(o.Silence, 1500*time.Millisecond)
	}
	o.Silence = orDefault(o.Silence, 3*time.Second)
	o.FirstDelay = orDefault(o.FirstDelay, 200*time.Millisecond)
	o.MaxDelay = orDefault(o.MaxDelay, 5*time.Second)
	if o.Quietly == nil {
		o.Quietly = func(_ uint64, work func()) { work() }
	}
	if o.Fleet == nil {
		o.Fleet = new(limit.Fleet)
	}
	if o.Place == nil {
		o.Place = new(atomic.Uint32)
	}
	return &Subscriber{o: o, tasks: make(chan task, 1), holds: make(chan held, 1)}
}

func orDefault(d, def time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return def
}

// Run follows the control plane until ctx ends; then it says goodbye, which
// takes a second at most, and returns.
func (s *Subscriber) Run(ctx context.Context) {
	var g sync.WaitGroup
	g.Go(func() { s.applyTasks(ctx) })
	s.follow(ctx)
	g.Wait()
}

// follow opens one stream after the other.
func (s *Subscriber) follow(ctx context.Context) {
	delay := backoff{first: s.o.FirstDelay, max: s.o.MaxDelay}
	next := newRota(s.o.ControlPlanes)
	complaints := make(map[string]complaint)
	for ctx.Err() == nil {
		address := next.address()
		began := time.Now()
		x, err := s.session(ctx, address)
		if ctx.Err() != nil {
			return
		}
		put(s.holds, held{what: discard}) // nobody is left who could commit it
		lasted := time.Since(began)
		if x.settled.Load() {
			delay.settled(lasted)
		}
		worked := x.settled.Load() && lasted >= steady
		if worked && errors.Is(err, errTurn) {
			s.o.Log.Info("control plane asks to choose one anew", "controlplane", address)
			next.anew()
			continue
		}
		var pause time.Duration
		if !next.next(worked) {
			pause = delay.next()
		}
		level := slog.LevelDebug
		if x.heard {
			delete(complaints, address)
		}
		if complaints[address].worthSaying(err) {
			complaints[address] = complaint{text: err.Error(), at: time.Now()}
			level = slog.LevelWarn
		}
		log := s.o.Log.With("controlplane", address, "error", err, "retry", pause.Round(time.Millisecond).String())
		if x.heard {
			log.Log(ctx, level, "control plane lost")
		} else {
			log.Log(ctx, level, "control plane unreachable")
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// complaint is what was last said about an address: an outage of hours is not
// worth a line every five seconds.
type complaint struct {
	text string
	at   time.Time
}

func (c complaint) worthSaying(err error) bool {
	return c.text != err.Error() || time.Since(c.at) >= time.Minute
}

// backoff spreads the reconnects of a whole fleet.
type backoff struct {
	first, max time.Duration
	n          float64 // the next pause before it is scattered; 0 is first
}

// settled notes that both sides had agreed on a version in a connection that then
// lasted for some time. Only one that has lasted shows that the trouble is over: a
// control plane that comes and goes is not worth five connections a second.
func (b *backoff) settled(lasted time.Duration) {
	if lasted >= b.max {
		b.n = 0
	}
}

// next returns the pause before the next connection: the current one, give or
// take half of it, and never more than max.
func (b *backoff) next() time.Duration {
	n := max(b.n, float64(b.first))
	b.n = min(n*1.6, float64(b.max)/1.5)
	return time.Duration(min(n*(0.5+rand.Float64()), float64(b.max)))
}
