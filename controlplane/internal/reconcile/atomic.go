package reconcile

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"reverseproxy/controlplane/internal/fleet"
	fleetv1 "reverseproxy/proto/fleet/v1"
)

const (
	// prepareTime is how long data planes may take to have a table ready when nobody
	// says, mostPrepareTime the longest that somebody may say: nothing else can be changed
	// meanwhile, and no roll-out goes on or back.
	prepareTime, mostPrepareTime = 30 * time.Second, 5 * time.Minute
	// switchTime is how long an answer may wait for the end of a switch.
	switchTime = 10 * time.Second
)

// errAtomicSteps and errStaged are why a change is not made by all data planes at once.
var (
	errAtomicSteps = &StepsError{errors.New("a change that all data planes make at the same moment has no steps")}
	errStaged      = errors.New("a roll-out of the same content goes on; promote or abort it (controlplane rollout), or wait")
)

// preparing returns what makes a change one for all data planes at the same moment, or
// for none: they have it ready before anything is durable. fleet.Release is to be called
// in the end.
func (l *Loader) preparing(ctx context.Context, r *fleetv1.ApplyRequest) func(*fleet.Table) error {
	timeout := prepareTime
	if d := r.GetPrepareTimeout(); d != nil {
		timeout = min(d.AsDuration(), mostPrepareTime)
	}
	return func(t *fleet.Table) error {
		l.opts.Log.Info("preparing a configuration everywhere", "version", t.Version, "revision", t.Revision, "timeout", timeout.String())
		err := l.fleet.Prepare(ctx, t, int(r.GetExpect()), timeout)
		if err != nil {
			l.opts.Log.Warn("configuration not prepared everywhere; nothing has changed", "version", t.Version, "error", Shorten(err.Error()))
		}
		return err
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
