package reconcile

import (
	"context"
	"errors"
	"maps"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"reverseproxy/controlplane/internal/fleet"
	fleetv1 "reverseproxy/proto/fleet/v1"
)

const (
	// prepareTime is how long data planes may take to have a table ready when nobody
	// says, mostPrepareTime the longest that somebody may say: those that are ready keep
	// two tables, and perhaps another port, for as long.
	prepareTime, mostPrepareTime = 30 * time.Second, 5 * time.Minute
	// switchTime is how long an answer may wait for the end of a switch.
	switchTime = 10 * time.Second
)

// Why a change is not made by all data planes at once.
var (
	errAtomicSteps = &StepsError{errors.New("a change that all data planes make at the same moment has no steps")}
	errStaged      = errors.New("a roll-out of the same content goes on; promote or abort it (controlplane rollout), or wait")
	errPreparing   = errors.New("another configuration is being prepared for all data planes at once; run it again when that is over")
	errOutdated    = errors.New("the configuration changed while this one was being prepared, of which nothing is in force; run it again")
)

// preparation is a change that data planes make ready, to be made by all of them at once.
type preparation struct {
	// version and drained are of what the change was checked against, and takes the place of.
	version string
	drained map[string]bool
	// outdate ends it, with the reason.
	outdate context.CancelCauseFunc
}

// prepareTimeout is how long data planes may take to have a change ready.
func prepareTimeout(r *fleetv1.ApplyRequest) time.Duration {
	if d := r.GetPrepareTimeout(); d != nil {
		return min(d.AsDuration(), mostPrepareTime)
	}
	return prepareTime
}

// takePreparation waits until no other change is being prepared, for as long as it may
// itself take then.
func (l *Loader) takePreparation(ctx context.Context, most time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, most, errPreparing)
	defer cancel()
	select {
	case l.preparations <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (l *Loader) freePreparation() { <-l.preparations }

// preparing returns what makes a change one for all data planes at the same moment, or
// for none: they have it ready before anything is durable. fleet.Release is to be called
// in the end.
func (l *Loader) preparing(ctx context.Context, r *fleetv1.ApplyRequest) func(*fleet.Table) error {
	return func(t *fleet.Table) error {
		timeout := prepareTimeout(r)
		l.opts.Log.Info("preparing a configuration everywhere", "version", t.Version, "revision", t.Revision, "timeout", timeout.String())
		err := l.prepare(ctx, t, int(r.GetExpect()), timeout)
		if err != nil {
			l.opts.Log.Warn("configuration not prepared everywhere; nothing has changed", "version", t.Version, "error", Shorten(err.Error()))
		}
		return err
	}
}

// prepare returns nil when all data planes have a table ready and what it was made for is
// still in force. The turn, which is held, is given to others meanwhile: a roll-out that
// goes wrong is taken back, and people may do what they like. What they change ends the
// preparation.
func (l *Loader) prepare(ctx context.Context, t *fleet.Table, expected int, timeout time.Duration) error {
	ctx, outdate := context.WithCancelCause(ctx)
	defer outdate(nil)
	l.preparation = &preparation{l.fleet.Desired().Version, l.drained, outdate}
	defer func() { l.preparation = nil }()
	for {
		l.free()
		err := l.fleet.Prepare(ctx, t, expected, timeout)
		l.turn <- struct{}{}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return err
		case l.fleet.Prepared(t): // also now that nobody else can change anything
			return nil
		}
	}
}

// outdate ends the preparation that goes on when what it was made for is not in force any
// more. The turn is held.
func (l *Loader) outdate() {
	p := l.preparation
	if p != nil && (p.version != l.fleet.Desired().Version || !maps.Equal(p.drained, l.drained)) {
		p.outdate(errOutdated)
	}
}

// spread waits for the end of the last switch, for a time; nil: it has not ended.
func (s *Service) spread(ctx context.Context) *durationpb.Duration {
	ctx, cancel := context.WithTimeout(ctx, switchTime)
	defer cancel()
	if spread, all := s.fleet.Switched(ctx); all {
		return durationpb.New(spread)
	}
	return nil
}
