package reconcile

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"reverseproxy/controlplane/internal/explain"
	"reverseproxy/controlplane/internal/fleet"
	fleetv1 "reverseproxy/proto/fleet/v1"
)

// catchUp is how long a status may wait for a change of the file that is being
// noticed.
const catchUp = time.Second

// reportTime is how long an answer may wait for data planes that were asked to report.
const reportTime = 500 * time.Millisecond

// Service is what the command line asks of a running control plane.
type Service struct {
	fleetv1.UnimplementedFleetServiceServer
	loader *Loader
	fleet  *fleet.Fleet
	log    *slog.Logger
}

// NewService returns the service for the loader and the fleet it publishes to.
func NewService(l *Loader, f *fleet.Fleet, log *slog.Logger) *Service {
	return &Service{loader: l, fleet: f, log: log}
}

// Status implements fleetv1.FleetServiceServer. A change of the file that has
// been saved already is taken into account, or said to be on its way.
func (s *Service) Status(ctx context.Context, r *fleetv1.StatusRequest) (*fleetv1.StatusResponse, error) {
	if r.GetAsk() {
		s.fleet.Ask(false)
	}
	caughtUp := s.loader.CatchUp(ctx, catchUp)
	answer := s.loader.Status()
	answer.Config.Changing = !caughtUp
	return answer, nil
}

// Apply implements fleetv1.FleetServiceServer.
func (s *Service) Apply(ctx context.Context, r *fleetv1.ApplyRequest) (*fleetv1.ApplyResponse, error) {
	author, err := signed(ctx, r.GetAuthor(), r.GetMessage())
	if err != nil {
		return nil, err
	}
	r.Author = author
	s.log.Info("apply requested", "name", r.GetName(), "bytes", len(r.GetConfig()), "author", author, "force", r.GetForce())
	t, changed, problems, err := s.loader.Apply(ctx, r)
	var badSteps *StepsError
	var unprepared *fleet.UnpreparedError
	switch {
	case errors.Is(err, errEmptyName), errors.As(err, &badSteps):
		return nil, status.Error(codes.InvalidArgument, err.Error())
	case errors.As(err, &unprepared):
		return &fleetv1.ApplyResponse{Unprepared: unprepared.Reasons}, nil
	case ctx.Err() != nil && t == nil:
		return nil, status.FromContextError(ctx.Err()).Err()
	case err != nil:
		s.log.Error("apply failed", "name", r.GetName(), "error", err)
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	case len(problems) > 0:
		s.log.Warn("apply refused", "name", r.GetName(), "problems", len(problems), "first", problems[0])
		return &fleetv1.ApplyResponse{Problems: problems}, nil
	}
	answer := &fleetv1.ApplyResponse{
		Version: t.Version, Revision: t.Revision, Changed: changed, Kept: s.loader.History().Kept(),
		RollingOut: s.loader.RollingOut(t),
	}
	if r.GetAtomic() && changed {
		answer.Spread = s.spread(ctx)
	}
	return answer, nil
}

// Rollout implements fleetv1.FleetServiceServer.
func (s *Service) Rollout(context.Context, *fleetv1.RolloutRequest) (*fleetv1.RolloutResponse, error) {
	return &fleetv1.RolloutResponse{Rollout: s.loader.Rollout()}, nil
}

// SteerRollout implements fleetv1.FleetServiceServer.
func (s *Service) SteerRollout(ctx context.Context, r *fleetv1.SteerRolloutRequest) (*fleetv1.SteerRolloutResponse, error) {
	author, err := signed(ctx, r.GetAuthor(), r.GetReason())
	if err != nil {
		return nil, err
	}
	r.Author = author
	s.log.Info("roll-out steered", "action", r.GetAction().String(), "revision", r.GetRevision(), "author", r.GetAuthor(), "reason", r.GetReason())
	answer, err := s.loader.Steer(ctx, r)
	var refused *SteerError
	switch {
	case errors.As(err, &refused):
		return nil, status.Error(codes.FailedPrecondition, refused.Error())
	case ctx.Err() != nil && err != nil:
		return nil, status.FromContextError(ctx.Err()).Err()
	case err != nil:
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &fleetv1.SteerRolloutResponse{Rollout: answer}, nil
}

// Backends implements fleetv1.FleetServiceServer.
func (s *Service) Backends(ctx context.Context, r *fleetv1.BackendsRequest) (*fleetv1.BackendsResponse, error) {
	if r.GetAsk() {
		s.ask(ctx)
	}
	answer := s.fleet.Backends(r.GetEndpoint(), int(r.GetLimit()))
	if answer == nil {
		return nil, status.Error(codes.NotFound, NoEndpoint(r.GetEndpoint(), s.fleet.Desired().Proto))
	}
	return answer, nil
}

// ask has the data planes report and gives them a moment to answer.
func (s *Service) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, reportTime)
	defer cancel()
	since := s.fleet.Ask(true)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !s.fleet.Answered(since) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Drain implements fleetv1.FleetServiceServer.
func (s *Service) Drain(ctx context.Context, r *fleetv1.DrainRequest) (*fleetv1.DrainResponse, error) {
	author, err := signed(ctx, "", "")
	if err != nil {
		return nil, err
	}
	s.log.Info("drain requested", "backend", r.GetUrl(), "undrain", r.GetUndrain(), "author", author, "force", r.GetForce())
	o, err := s.loader.Drain(ctx, r.GetUrl(), r.GetUndrain(), r.GetForce(), author)
	var refused *DrainError
	switch {
	case errors.As(err, &refused) && refused.Unknown:
		return nil, status.Error(codes.NotFound, refused.Error())
	case ctx.Err() != nil && err != nil:
		return nil, status.FromContextError(ctx.Err()).Err()
	case err != nil:
		s.log.Error("drain failed", "backend", r.GetUrl(), "error", err)
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	return &fleetv1.DrainResponse{
		Version: o.Table.Version, Revision: o.Table.Revision, Changed: o.Changed, Kept: o.Kept, Endpoints: uint32(o.Endpoints),
	}, nil
}

// Explain implements fleetv1.FleetServiceServer.
func (s *Service) Explain(_ context.Context, r *fleetv1.ExplainRequest) (*fleetv1.ExplainResponse, error) {
	answer, err := explain.Explain(s.fleet.Desired().Proto, r)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	for _, b := range answer.GetBackends() {
		b.Draining = s.fleet.Drained(b.GetUrl())
	}
	return answer, nil
}
