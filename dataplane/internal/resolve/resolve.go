// Package resolve keeps the addresses of backends' names current: it looks each
// name up at once and then again and again, and stores what it finds in the
// backend.Name, where tables look. Nobody waits for it: requests go to the
// addresses that are known. Package health says which names are in use.
package resolve

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"reverseproxy/dataplane/internal/backend"
	"reverseproxy/proto/routetable"
)

const (
	// soon is when a lookup that failed is tried again, twice as late each time.
	soon = time.Second
	// lookupTimeout bounds a lookup. A server that needs longer has the answer
	// ready for the next one.
	lookupTimeout = 3 * time.Second
	// jitter is by which part of it a wait is longer or shorter at random, so that
	// the data planes of a fleet do not ask all at once.
	jitter = 0.1
	// maxLookups is how many lookups there are at once.
	maxLookups = 64
)

// Options are what a Resolver needs; all are required.
type Options struct {
	// Lookup returns the addresses of a host name. An error, and no address, is a
	// failure.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	// Changed is called when a name has other addresses than before, and when its
	// first lookup has failed. It may follow or leave names.
	Changed func(*backend.Name)
	Log     *slog.Logger
}

// Resolver looks names up. All methods may be called from several goroutines.
type Resolver struct {
	o     Options
	slots chan struct{} // one for each lookup in progress

	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	pending sync.WaitGroup // of lookups

	mu       sync.Mutex // guards the following
	interval time.Duration
	names    map[*backend.Name]*following
}

// following is a name that is kept current. Guarded by Resolver.mu.
type following struct {
	name   *backend.Name
	users  int
	ctx    context.Context // ends when nobody uses it
	cancel context.CancelFunc
	timer  *time.Timer // of the next lookup; nil during the first
	retry  time.Duration
	reason string // of the last lookup, empty when it succeeded

	succeeded, failed uint64
}

// New returns a resolver without names.
func New(o Options) *Resolver {
	r := &Resolver{o: o, slots: make(chan struct{}, maxLookups), interval: routetable.DefaultResolveInterval, names: map[*backend.Name]*following{}}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// Close ends all lookups and waits for them.
func (r *Resolver) Close() {
	r.mu.Lock()
	r.cancel()
	for _, f := range r.names {
		f.stop()
	}
	r.mu.Unlock()
	r.pending.Wait()
}

// SetInterval changes the time between two lookups, from the next wait on.
func (r *Resolver) SetInterval(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	shorter := d < r.interval
	r.interval = d
	if !shorter {
		return
	}
	for _, f := range r.names {
		if f.timer != nil && f.timer.Stop() {
			f.timer.Reset(r.wait(f))
		}
	}
}

// Follow keeps a name current until Leave has been called as often.
func (r *Resolver) Follow(n *backend.Name) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.names[n]
	if f == nil {
		f = &following{name: n}
		f.ctx, f.cancel = context.WithCancel(r.ctx)
		r.names[n] = f
		r.look(f)
	}
	f.users++
}

// Leave is the counterpart of Follow.
func (r *Resolver) Leave(n *backend.Name) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.names[n]
	if f == nil {
		return
	}
	if f.users--; f.users == 0 {
		f.stop()
		delete(r.names, n)
	}
}

// stop ends the lookups of a name. The caller holds r.mu.
func (f *following) stop() {
	f.cancel()
	if f.timer != nil {
		f.timer.Stop()
	}
}

// look begins a lookup, if the name is still in use. The caller holds r.mu.
func (r *Resolver) look(f *following) {
	if f.ctx.Err() == nil {
		r.pending.Go(func() { r.lookup(f) })
	}
}

// lookup is one lookup, in a goroutine of its own.
func (r *Resolver) lookup(f *following) {
	select {
	case r.slots <- struct{}{}:
	case <-f.ctx.Done():
		return
	}
	ctx, cancel := context.WithTimeout(f.ctx, lookupTimeout)
	found, err := r.o.Lookup(ctx, f.name.Host())
	cancel()
	<-r.slots
	if r.take(f, found, err) {
		r.o.Changed(f.name)
	}
}

// take takes the result of a lookup, and reports whether the addresses have
// changed.
func (r *Resolver) take(f *following, found []netip.Addr, err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f.ctx.Err() != nil {
		return false
	}
	found = preferred(found)
	if err == nil && len(found) == 0 {
		err = errors.New("it has no address")
	}
	var changed bool
	if err != nil {
		changed = r.failure(f, err)
	} else {
		changed = r.success(f, found)
	}
	wait := r.wait(f)
	if f.timer == nil {
		f.timer = time.AfterFunc(wait, func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.look(f)
		})
	} else {
		f.timer.Reset(wait)
	}
	return changed
}

func (r *Resolver) success(f *following, found []netip.Addr) bool {
	f.succeeded++
	again := f.reason != ""
	f.reason, f.retry = "", 0
	changed := f.name.Set(found)
	if changed || again {
		addresses, _ := f.name.Addresses()
		r.o.Log.Info("name resolved", "name", f.name.Host(), "addresses", strings.Join(addresses, " "))
	}
	return changed
}

// failure keeps the addresses that are known.
func (r *Resolver) failure(f *following, err error) bool {
	f.failed++
	f.retry = min(max(soon, 2*f.retry), r.interval)
	addresses, known := f.name.Addresses()
	if reason := plain(err); reason != f.reason {
		f.reason = reason
		r.o.Log.Warn("name cannot be resolved", "name", f.name.Host(), "error", reason, "kept", strings.Join(addresses, " "))
	}
	return !known && f.name.Set(nil)
}

// plain returns an error's text without what is different each time.
func plain(err error) string {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		if dns.IsTimeout {
			return "no answer in time"
		}
		return dns.Err
	}
	return err.Error()
}

// wait returns how long to wait for the next lookup. The caller holds r.mu.
func (r *Resolver) wait(f *following) time.Duration {
	wait := r.interval
	if f.retry > 0 {
		wait = min(wait, f.retry)
	}
	return time.Duration(float64(wait) * (1 + jitter*(2*rand.Float64()-1)))
}

// preferred returns the IPv4 addresses, or if there are none those of IPv6: many
// hosts have names with both and a network with one.
func preferred(found []netip.Addr) []netip.Addr {
	var four, six []netip.Addr
	for _, a := range found {
		if a = a.Unmap(); a.Is4() {
			four = append(four, a)
		} else {
			six = append(six, a)
		}
	}
	if len(four) > 0 {
		return four
	}
	return six
}
