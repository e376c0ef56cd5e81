package reconcile

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"reverseproxy/controlplane/internal/compile"
	"reverseproxy/controlplane/internal/plan"
	fleetv1 "reverseproxy/proto/fleet/v1"
	"reverseproxy/proto/routetable"
)

// Plan says what a text would change if it were applied now. It changes nothing, and
// apply does not wait for it.
func (l *Loader) Plan(ctx context.Context, name string, data []byte) (*fleetv1.PlanResponse, error) {
	if name == "" {
		return nil, errEmptyName
	}
	if err := l.take(ctx); err != nil {
		return nil, err
	}
	drained, going := l.drained, l.going()
	l.free()
	defer giveBack(len(data))
	cfg, content, err := read(name, data)
	if err != nil {
		return &fleetv1.PlanResponse{Problems: strings.Split(err.Error(), "\n")}, nil
	}
	running, planned := l.fleet.Desired(), compile.Drain(content, drained)
	answer := plan.Make(plan.Input{
		Running: running.Proto, Planned: planned, Since: running.Accepted,
		Rates: l.fleet.Traffic().Rates(), Samples: l.fleet.Traffic().Samples(),
	})
	answer.Version, answer.Revision = running.Version, running.Revision
	answer.PlannedVersion = routetable.Version(planned)
	if going && answer.GetVersion() != answer.GetPlannedVersion() {
		answer.Impacts = append(answer.Impacts, &fleetv1.Impact{
			Text: fmt.Sprintf("takes the place of revision %d, whose roll-out is going on", running.Revision),
		})
	}
	var drop *compile.DropError
	if errors.As(compile.CheckDrop(running.Proto, content, cfg.AcknowledgeDrop, false), &drop) {
		answer.Drop = fmt.Sprintf("%s, which apply refuses without --force, or %s at the top level of the file", drop.Loss(), drop.Acknowledgement())
	}
	return answer, nil
}

// Plan implements fleetv1.FleetServiceServer. The data planes are asked for what they
// have seen until now.
func (s *Service) Plan(ctx context.Context, r *fleetv1.PlanRequest) (*fleetv1.PlanResponse, error) {
	s.ask(ctx)
	answer, err := s.loader.Plan(ctx, r.GetName(), r.GetConfig())
	switch {
	case errors.Is(err, errEmptyName):
		return nil, status.Error(codes.InvalidArgument, err.Error())
	case err != nil:
		return nil, status.FromContextError(err).Err()
	}
	return answer, nil
}
