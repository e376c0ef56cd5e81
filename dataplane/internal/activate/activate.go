// Package activate owns the one route table in force and the listener that
// serves it. A wire table and what is claimed about it go in (from the stream or
// from disk, by package subscribe); out comes either a data plane that serves
// it, or an error and a data plane in which nothing has changed. One more table may
// be prepared, to be put in force at a word. Readiness,
// /config and the metrics about the configuration read what is in force here;
// the request path sees only the table.Live pointer.
package activate

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"reverseproxy/dataplane/internal/table"
	"reverseproxy/proto/routetable"
)

// Source is where the table in force comes from, as in metrics and status.
type Source string

// The sources.
const (
	Stream Source = "stream" // from the control plane, or confirmed by it
	Disk   Source = "disk"   // stored by an earlier run; no control plane has confirmed it yet
)

var (
	// ErrListen is in the chain of an error when the table itself is fine but its
	// port cannot be opened: the same table may work later.
	ErrListen = errors.New("the port cannot be opened")
	// ErrDraining is returned once Drain has been called.
	ErrDraining = errors.New("the data plane is draining")
)

// Listener is an open port of the proxy. Open returns it bound; connections are
// accepted from Serve on. Close stops accepting, serves what is in the accept
// queue and lets established connections finish.
type Listener interface {
	Serve()
	Addr() net.Addr
	Close()
}

// AccessLog is where the lines about requests are written. A path of "" is nowhere.
type AccessLog interface {
	// Check says why nothing can be written to a path.
	Check(path string) error
	// Follow makes a path the one in force. What goes wrong there is for the log
	// to tell.
	Follow(path string)
}

// Options say how tables are put in force. All fields but Address, Port and
// AccessLog are required.
type Options struct {
	// Address to bind; empty is all.
	Address string
	// Port overrides the table's port unless it is 0.
	Port uint16
	// AdminPort is never opened for the proxy; 0 is none.
	AdminPort uint16
	// Open opens a listener beside any others on the same port.
	Open func(address string, port uint16) (Listener, error)
	// Reserve keeps a port for Open, until it is closed. Nobody can connect to it.
	Reserve func(address string, port uint16) (io.Closer, error)
	// AccessLog follows the table in force; nil: there is none.
	AccessLog AccessLog
	// Live is where the table in force is stored for the request path.
	Live *table.Live
	// State outlives tables.
	State *table.State
	Log   *slog.Logger
}

// InForce describes the table that serves requests. It is immutable.
type InForce struct {
	Table *table.Table
	// Revision may be newer than the table's own: the control plane may have
	// accepted the same content again.
	Revision  uint64
	Source    Source
	Address   string // of the listener, host:port
	AppliedAt time.Time
}

// Activator puts route tables in force, one at a time. All methods may be called
// from several goroutines; none of those that only look waits for an activation.
type Activator struct {
	o Options

	mu       sync.Mutex // held for a whole activation
	listener Listener
	port     uint16 // that listener has been opened with
	prepared *prepared

	inForce  atomic.Pointer[InForce] // written under mu
	draining atomic.Bool

	counts counts
}

// New returns an activator with nothing in force.
func New(o Options) *Activator { return &Activator{o: o} }

// InForce returns what serves requests, nil when nothing does yet.
func (a *Activator) InForce() *InForce { return a.inForce.Load() }

// Drain makes the data plane unready for good. It does not wait, and does not
// touch the listener.
func (a *Activator) Drain() { a.draining.Store(true) }

// Ready returns nil when requests are served and may be sent here, else the
// reason why not.
func (a *Activator) Ready() error {
	switch {
	case a.draining.Load():
		return ErrDraining
	case a.inForce.Load() == nil:
		return errors.New("no route table has been applied yet")
	}
	return nil
}

// Refuse counts a table that came in a form in which it could not be activated.
func (a *Activator) Refuse() { a.counts.add(false) }

// Activate verifies a marshalled route table, compiles it and puts it in force.
// Nobody may change the bytes afterwards. When it returns an error nothing has
// changed: the table and the listener from before go on serving. The error holds a *routetable.Problem for each broken rule, and
// ErrListen when only the port is in the way.
func (a *Activator) Activate(encoded []byte, version string, revision uint64, source Source) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, err := a.activate(encoded, version, revision, source)
	a.count(err)
	return err
}

// ActivateMade does the same with a table from the stream that was made here, of the one
// in force and a delta. When it is not verified, the bytes are not the table with that
// version, or break a rule: that is counted as nothing, since the table itself may be
// fine.
func (a *Activator) ActivateMade(encoded []byte, version string, revision uint64) (verified bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	verified, err = a.activate(encoded, version, revision, Stream)
	if verified {
		a.count(err)
	}
	return verified, err
}

func (a *Activator) count(err error) {
	if !errors.Is(err, ErrDraining) {
		a.counts.add(err == nil)
	}
}

// activate also tells whether the bytes are the table that was announced.
func (a *Activator) activate(encoded []byte, version string, revision uint64, source Source) (verified bool, err error) {
	before := a.inForce.Load()
	if before != nil && before.Table.Version == version {
		// The version stands for the content, and the content has been verified.
		a.confirm(before, revision, source)
		return true, nil
	}
	a.discard() // it was made before this one, and cannot come into force after it
	t, err := a.compile(encoded, version, revision)
	if err != nil {
		return false, err
	}
	if err := a.checkLog(t); err != nil {
		return true, err
	}
	next, err := a.open(t)
	if err != nil {
		return true, err
	}

	// From here on nothing can fail.
	t.Warm(a.o.Live.Load())
	a.o.Live.Store(t)
	a.follow(t, next, revision, source)
	return true, nil
}

// follow has everything follow the table that is live now: the access log, the
// listener, if it needs another one, and what outlives tables.
func (a *Activator) follow(t *table.Table, next Listener, revision uint64, source Source) {
	if a.o.AccessLog != nil {
		a.o.AccessLog.Follow(logPath(t))
	}
	old := a.listener
	if next != nil {
		a.listener, a.port = next, a.portOf(t)
		next.Serve()
		if old != nil {
			// It takes a second or so to leave without losing anybody, for which
			// the report that the table is in force need not wait.
			go old.Close()
		}
	}
	f := &InForce{Table: t, Revision: revision, Source: source, Address: a.listener.Addr().String(), AppliedAt: time.Now()}
	a.inForce.Store(f)
	a.o.State.Retain(t)
	a.o.Log.Info("serving", "address", f.Address, "version", t.Version, "revision", revision,
		"source", source, "endpoints", t.Len())
}

// compile turns a wire table into one that can serve.
func (a *Activator) compile(encoded []byte, version string, revision uint64) (t *table.Table, err error) {
	// A table that makes this code panic is refused, like any other bytes from the
	// network: it would otherwise be stored and sent again, and stop the process
	// at each start.
	defer func() {
		if r := recover(); r != nil {
			a.o.Log.Error("route table makes the data plane panic", "version", version, "panic", r, "stack", string(debug.Stack()))
			t, err = nil, errors.New("internal error while compiling the route table; its stack is in the data plane's log")
		}
	}()
	return table.New(encoded, version, revision, a.o.State)
}

// open returns a new listener when t needs another one than the open one.
func (a *Activator) open(t *table.Table) (Listener, error) {
	port, needed, err := a.needs(t)
	if err != nil || !needed {
		return nil, err
	}
	l, err := a.o.Open(a.o.Address, port)
	if err != nil {
		return nil, cannotOpen(port, err)
	}
	return l, nil
}

// needs returns the port of t, and whether another listener is needed for it than the
// open one.
func (a *Activator) needs(t *table.Table) (port uint16, needed bool, err error) {
	if a.draining.Load() {
		return 0, false, ErrDraining
	}
	port = a.portOf(t)
	if a.listener != nil && port == a.port {
		return port, false, nil
	}
	if port == a.o.AdminPort {
		return 0, false, &routetable.Problem{Path: "port", Message: fmt.Sprintf(
			"%d is the port of the data plane's own admin server; choose another one here or with its flag --admin", port)}
	}
	return port, true, nil
}

func cannotOpen(port uint16, err error) error {
	return &listenError{routetable.Problem{Path: "port", Message: fmt.Sprintf("%d cannot be opened: %v", port, err)}}
}

// checkLog refuses a table that moves the access log to where it cannot be
// written: whoever has changed the path is told. Once it is in force, or when
// there is nothing to go on with, requests are served without it: no other change
// and no start of the process fails because of a log.
func (a *Activator) checkLog(t *table.Table) error {
	before, path := a.o.Live.Load(), logPath(t)
	if a.o.AccessLog == nil || before == nil || path == "" || path == logPath(before) {
		return nil
	}
	if err := a.o.AccessLog.Check(path); err != nil {
		return &routetable.Problem{Path: "access_log.path", Message: fmt.Sprintf(
			"%s cannot be written by this data plane: %v", path, err)}
	}
	return nil
}

// logPath returns the path of a table's access log, empty when it has none.
func logPath(t *table.Table) string {
	if t.AccessLog == nil {
		return ""
	}
	return t.AccessLog.Path
}

func (a *Activator) portOf(t *table.Table) uint16 {
	if a.o.Port != 0 {
		return a.o.Port
	}
	return t.Port
}

// Confirm records that the control plane desires the version that is in force.
// It returns false when another one is, or none.
func (a *Activator) Confirm(version string, revision uint64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	f := a.inForce.Load()
	if f == nil || f.Table.Version != version {
		return false
	}
	a.confirm(f, revision, Stream)
	return true
}

func (a *Activator) confirm(f *InForce, revision uint64, source Source) {
	if f.Revision == revision && f.Source == source {
		return
	}
	g := *f
	g.Revision, g.Source = revision, source
	a.inForce.Store(&g)
	a.o.Log.Info("confirmed", "version", g.Table.Version, "revision", revision, "source", source)
}

// listenError is ErrListen, told as a problem of the route table.
type listenError struct{ problem routetable.Problem }

func (e *listenError) Error() string { return e.problem.Error() }

func (e *listenError) Unwrap() error { return &e.problem }

func (e *listenError) Is(target error) bool { return target == ErrListen }
