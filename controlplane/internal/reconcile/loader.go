// Package reconcile makes the fleet's desired table follow the watched file:
// bytes → config → compile → guard → publish. It is the one place where file
// changes and `controlplane apply` meet, and where "keep the last good table"
// is decided; the parts themselves are pure.
package reconcile

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/timestamppb"

	"reverseproxy/controlplane/internal/assert"
	"reverseproxy/controlplane/internal/compile"
	"reverseproxy/controlplane/internal/config"
	"reverseproxy/controlplane/internal/fleet"
	"reverseproxy/controlplane/internal/history"
	"reverseproxy/controlplane/internal/rollout"
	"reverseproxy/controlplane/internal/source"
	fleetv1 "reverseproxy/proto/fleet/v1"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// DefaultInterval is how often the file is looked at. A change is read when two
// looks in a row have seen it, so it is noticed after at most twice this time,
// which leaves more than half of the 0.5 s in which a change is to arrive.
const DefaultInterval = 100 * time.Millisecond

// shownProblems is how many problems of a refused configuration are logged, and
// shown in the status; validate prints all.
const shownProblems = 20

// Options of a Loader.
type Options struct {
	// Interval between two looks at the file; DefaultInterval when zero.
	Interval time.Duration
	// History is required: every change goes through it.
	History *history.Store
	// DrainsFile keeps the drained backends over restarts; empty: they are not kept.
	DrainsFile string
	// RevisionFile is where an earlier release has kept the revision; empty: nowhere.
	RevisionFile string
	// Drained are the backends that were drained in the last run.
	Drained []string
	// RolloutFile keeps the roll-out over restarts; empty: it is not kept. Rollout is
	// that of the last run, nil when there was none.
	RolloutFile string
	Rollout     *rollout.Rollout
	// Grace is how long a data plane may be away during a roll-out.
	Grace time.Duration
	// Log is required.
	Log *slog.Logger
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

// Loader makes the fleet follow the file. Its methods may be called from
// several goroutines.
type Loader struct {
	opts  Options
	fleet *fleet.Fleet
	run   string // tells this run of the control plane from others

	// preparations is a lock that can be given up on, taken before the turn: one change is
	// prepared at a time.
	preparations chan struct{}
	// turn is such a lock too: whoever holds its one token may use file and the fields
	// below.
	turn chan struct{}
	file *source.File
	// logged is the error that was logged last, "" after a success.
	logged string
	// unkept is a change that is in force although the history could not be written,
	// nil when there is none.
	unkept *unkept
	// keepError is the error in writing the history that was logged last, "" after a
	// success.
	keepError string
	// preparation is the one that goes on, nil when none does.
	preparation *preparation
	// counted is the revision of an earlier release.
	counted record
	// content is the running configuration as in the file; drained are the backends,
	// by URL, that get no requests whatever it says.
	content *routetablev1.RouteTable
	drained map[string]bool

	// rollout is the one that is going on, or else the last one; nil: there has been
	// none. base is what it can return to, nil when none is going on.
	rollout *rollout.Rollout
	base    *base
	// nextAdvance is when it is to see the data planes again; rolloutError the error in writing it
	// that was logged last, "" after a success.
	nextAdvance  time.Time
	rolloutError string
	// shown is its description.
	shown atomic.Pointer[fleetv1.Rollout]

	// last is the outcome of the newest load.
	last atomic.Pointer[outcome]

	loads, rollouts *prometheus.CounterVec
	successful      prometheus.Gauge
	kept            prometheus.Gauge
}

// outcome of a load.
type outcome struct {
	err      string    // "" when the newest content is the running configuration
	parked   bool      // it was, and was taken back
	accepted time.Time // of the running configuration
}

// New returns a loader for the file; Start has to be called next.
func New(file *source.File, f *fleet.Fleet, opts Options) *Loader {
	if opts.Interval == 0 {
		opts.Interval = DefaultInterval
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	l := &Loader{
		opts: opts, fleet: f, run: rand.Text(), file: file, drained: map[string]bool{},
		turn: make(chan struct{}, 1), preparations: make(chan struct{}, 1),
		loads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "controlplane_config_loads_total",
			Help: "Configurations read or applied, by result: ok or error.",
		}, []string{"result"}),
		rollouts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "controlplane_rollouts_total",
			Help: "Roll-outs that are over, by result: done, aborted or superseded.",
		}, []string{"result"}),
		rollout: opts.Rollout,
		kept: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "controlplane_history_last_write_successful",
			Help: "Whether the history has the running configuration.",
		}),
		successful: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "controlplane_config_last_load_successful",
			Help: "Whether the newest content of the configuration is the running one.",
		}),
	}
	for _, url := range opts.Drained {
		l.drained[url] = true
	}
	l.last.Store(&outcome{})
	for _, result := range []string{"ok", "error"} {
		l.loads.WithLabelValues(result)
	}
	for _, result := range []rollout.Phase{rollout.Done, rollout.Aborted, rollout.Superseded} {
		l.rollouts.WithLabelValues(string(result))
	}
	l.resumeAbort()
	if l.going() {
		l.opts.History.Hold(l.rollout.BaseRevision)
	}
	l.showRollout()
	return l
}

// History returns the history.
func (l *Loader) History() *history.Store { return l.opts.History }

// Start reads the file for the first time and publishes it. Its error holds all
// problems, one per line.
func (l *Loader) Start() error {
	l.turn <- struct{}{}
	defer l.free()
	if err := source.RemoveLeftovers(l.file.Path()); err != nil {
		l.opts.Log.Warn("leftover of a crash not removed", "error", err)
	}
	l.readCounted()
	data, err := l.file.Reload()
	if err != nil {
		return err
	}
	if l.parked(data) && l.follows(l.opts.History.Newest()) && l.opts.History.Has(data) {
		l.unpark() // it was applied again
	}
	if l.parked(data) {
		err = l.startParked()
	} else {
		err = l.load(data)
	}
	if err != nil {
		return err
	}
	l.removeCounted()
	return nil
}

// Run follows the file until the context ends; a value on reload makes it read
// the file at once.
func (l *Loader) Run(ctx context.Context, reload <-chan struct{}) {
	tick := time.NewTicker(l.opts.Interval)
	defer tick.Stop()
	defer func() {
		l.turn <- struct{}{}
		l.keep() // a revision that was adopted since the last tick
		l.free()
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if l.take(ctx) != nil {
				return
			}
			l.poll()
			l.advance()
			l.keep()
			l.free()
		case <-reload:
			if l.take(ctx) != nil {
				return
			}
			l.opts.Log.Info("reading the configuration again, as told")
			l.logged = "" // whoever asked wants an answer, also the same one
			l.handle(l.file.Reload())
			l.free()
		}
	}
}

// take waits for the turn.
func (l *Loader) take(ctx context.Context) error {
	select {
	case l.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *Loader) free() { <-l.turn }

// poll looks at the file once.
func (l *Loader) poll() {
	if data, changed, err := l.file.Poll(); changed {
		l.handle(data, err)
	}
}

// handle takes what the source yields. The outcome is in status, log and
// metrics.
func (l *Loader) handle(data []byte, err error) {
	if err != nil {
		l.failed(err)
		return
	}
	if err := l.load(data); err != nil {
		l.failed(err)
	}
}

// load makes the file's content the running configuration, or returns why not.
func (l *Loader) load(data []byte) error {
	defer giveBack(len(data))
	if l.parked(data) {
		return l.errParked()
	}
	c, err := l.check(l.file.Path(), data, false)
	if err != nil {
		return err
	}
	c.origin = fleetv1.Origin_ORIGIN_FILE
	t, changed, err := l.accept(c)
	if err == nil {
		l.loaded(t, changed)
	}
	return err
}

// giveBack returns the memory to the system that a large text has taken while it
// was read: ten times its size, and several times what is kept of it.
func giveBack(size int) {
	const large = 1 << 20
	if size >= large {
		debug.FreeOSMemory()
	}
}

// read turns a text whose tests hold into a route table.
func read(name string, data []byte) (*config.Config, *routetablev1.RouteTable, error) {
	cfg, err := config.Load(name, data)
	if err != nil {
		return nil, nil, err
	}
	rt, err := compile.Compile(cfg)
	if err != nil {
		return nil, nil, err
	}
	return cfg, rt, assert.Check(name, cfg.Tests, rt)
}

// check turns a text into a change of the running configuration, which lacks only what
// is for the history.
func (l *Loader) check(name string, data []byte, force bool) (change, error) {
	cfg, rt, err := read(name, data)
	if err != nil {
		return change{}, err
	}
	if cur := l.fleet.Desired(); cur != nil {
		if err := compile.CheckDrop(cur.Proto, rt, cfg.AcknowledgeDrop, force); err != nil {
			return change{}, fmt.Errorf("%s:1:1: file: %w", name, err)
		}
	}
	return change{data: data, content: rt, drained: l.drained, rollout: cfg.Rollout}, nil
}

// loaded notes that the newest content of the file is the running configuration.
func (l *Loader) loaded(t *fleet.Table, changed bool) {
	l.loads.WithLabelValues("ok").Inc()
	l.successful.Set(1)
	l.unpark()
	recovered := l.last.Load().err != ""
	l.last.Store(&outcome{accepted: t.Accepted})
	l.logged = ""
	switch {
	case changed:
		l.opts.Log.Info("configuration loaded", "file", l.file.Path(), "version", t.Version, "revision", t.Revision,
			"endpoints", len(t.Proto.GetEndpoints()))
	case recovered:
		l.opts.Log.Info("configuration is good again, and the running one", "file", l.file.Path(), "version", t.Version, "revision", t.Revision)
	default:
		l.opts.Log.Info("configuration means the same as before", "file", l.file.Path(), "version", t.Version, "revision", t.Revision)
	}
}

// failed notes that the file's newest content is not the running configuration.
// The fleet goes on with the last good one. Each distinct error is logged once.
func (l *Loader) failed(err error) {
	l.loads.WithLabelValues("error").Inc()
	l.successful.Set(0)
	text := Shorten(err.Error())
	var parked *parkedError
	l.last.Store(&outcome{err: text, parked: errors.As(err, &parked), accepted: l.last.Load().accepted})
	if text == l.logged {
		return
	}
	l.logged = text
	for problem := range strings.Lines(text) {
		l.opts.Log.Error("configuration problem", "problem", strings.TrimSuffix(problem, "\n"))
	}
	t := l.fleet.Desired()
	l.opts.Log.Error("configuration refused; the last good one goes on", "file", l.file.Path(), "version", t.Version, "revision", t.Revision)
}

// Shorten keeps the first lines of a report of many problems.
func Shorten(text string) string {
	lines := strings.Split(text, "\n")
	if len(lines) <= shownProblems {
		return text
	}
	return strings.Join(lines[:shownProblems], "\n") +
		fmt.Sprintf("\nand %d more; see controlplane validate", len(lines)-shownProblems)
}

// errEmptyName is for a caller that gives a text no name.
var errEmptyName = errors.New("the configuration has no name")

// Apply makes a text the running configuration and the content of the file. When
// it is the running one already, the data planes that have rejected it are offered
// it again.
// Problems of the text are returned as such and change nothing; err means that
// the text was good and could not be put into effect.
//
// When the file is edited at the same time, the last writer wins: a text
// applied after the edit replaces it, read or not; an edit after the text has
// been written is a change like any other. One that all data planes make at once is
// given up on when another change is accepted while it is prepared.
func (l *Loader) Apply(ctx context.Context, r *fleetv1.ApplyRequest) (t *fleet.Table, changed bool, problems []string, err error) {
	if r.GetName() == "" {
		return nil, false, nil, errEmptyName
	}
	if r.GetAtomic() {
		if err := l.takePreparation(ctx, prepareTimeout(r)); err != nil {
			return nil, false, nil, err
		}
		defer l.freePreparation()
	}
	if err := l.take(ctx); err != nil {
		return nil, false, nil, err
	}
	defer l.free()
	data := r.GetConfig()
	defer giveBack(len(data))
	c, err := l.check(r.GetName(), data, r.GetForce())
	if err != nil {
		return nil, false, strings.Split(err.Error(), "\n"), nil
	}
	if c.rollout, err = stepsOf(r.GetSteps(), c.rollout); err != nil {
		return nil, false, nil, &StepsError{err}
	}
	c.origin, c.author, c.message = fleetv1.Origin_ORIGIN_APPLY, r.GetAuthor(), r.GetMessage()
	if r.GetAtomic() {
		if len(r.GetSteps()) > 0 {
			return nil, false, nil, errAtomicSteps
		}
		c.prepare = l.preparing(ctx, r)
		defer l.fleet.Release()
	}
	t, changed, err = l.replace(c)
	return t, changed, nil, err
}

// replace makes a change the running configuration and the content of the file.
func (l *Loader) replace(c change) (*fleet.Table, bool, error) {
	c.settle = func() error { return l.file.Write(c.data) }
	t, changed, err := l.accept(c)
	if err != nil {
		return nil, false, err
	}
	l.loaded(t, changed)
	if !changed {
		l.fleet.OfferAgain()
	}
	return t, changed, nil
}

// CatchUp waits until a change of the file that has been saved already is
// loaded or refused, at most for the given time, so that whoever saves the file
// and then asks for the status is told about what was saved. It returns false
// when that has taken longer: what is running is not yet what was saved.
func (l *Loader) CatchUp(ctx context.Context, most time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	tick := time.NewTicker(l.opts.Interval / 4)
	defer tick.Stop()
	for {
		if l.take(ctx) != nil {
			return false
		}
		settled := l.file.Settled()
		l.free()
		if settled {
			return true
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
}

// Status describes the desired configuration and the whole fleet.
func (l *Loader) Status() *fleetv1.StatusResponse {
	last := l.last.Load()
	view := l.fleet.Observe()
	t := view.Goal.Table
	return &fleetv1.StatusResponse{
		Rollout:  l.shownRollout(last),
		RunId:    l.run,
		Version:  t.Version,
		Revision: t.Revision,
		Config: &fleetv1.ConfigStatus{
			File:      l.file.Path(),
			Ok:        last.err == "",
			Error:     last.err,
			LoadedAt:  timestamppb.New(last.accepted),
			Endpoints: uint32(len(t.Proto.GetEndpoints())),
		},
		Dataplanes:        view.DataPlanes,
		Draining:          view.Draining,
		UnhealthyBackends: uint32(view.Unhealthy),
	}
}

// Describe implements prometheus.Collector.
func (l *Loader) Describe(ch chan<- *prometheus.Desc) {
	l.loads.Describe(ch)
	l.successful.Describe(ch)
	l.kept.Describe(ch)
	l.rollouts.Describe(ch)
	for _, d := range []*prometheus.Desc{phaseDesc, stepDesc, stepsDesc, chosenDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (l *Loader) Collect(ch chan<- prometheus.Metric) {
	l.loads.Collect(ch)
	l.successful.Collect(ch)
	l.kept.Collect(ch)
	l.rollouts.Collect(ch)
	collectRollout(l.shown.Load(), ch)
}
