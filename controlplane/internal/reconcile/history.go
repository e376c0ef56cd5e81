package reconcile

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"reverseproxy/controlplane/internal/compile"
	"reverseproxy/controlplane/internal/config"
	"reverseproxy/controlplane/internal/diff"
	"reverseproxy/controlplane/internal/fleet"
	"reverseproxy/controlplane/internal/history"
	fleetv1 "reverseproxy/proto/fleet/v1"
	"reverseproxy/proto/identity"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

const (
	// maxAuthor and maxMessage bound what people say about a change, in bytes.
	maxAuthor, maxMessage = 256, 4096
)

// Rollback makes the text of an earlier revision the running configuration, as a new
// revision, and the content of the file. It is checked by the rules of today: problems
// change nothing, as in Apply. The error is a *history.UnknownError when there is no such
// revision.
func (l *Loader) Rollback(ctx context.Context, r *fleetv1.RollbackRequest) (t *fleet.Table, changed bool, problems []string, err error) {
	if err := l.take(ctx); err != nil {
		return nil, false, nil, err
	}
	defer l.free()
	data, err := l.opts.History.Text(r.GetRevision())
	if err != nil {
		return nil, false, nil, err
	}
	defer giveBack(len(data))
	c, err := l.check(nameOf(r.GetRevision()), data, r.GetForce())
	if err != nil {
		return nil, false, strings.Split(err.Error(), "\n"), nil
	}
	c.origin, c.author, c.message, c.restores = fleetv1.Origin_ORIGIN_ROLLBACK, r.GetAuthor(), r.GetMessage(), r.GetRevision()
	t, changed, err = l.replace(c)
	if err != nil {
		err = fmt.Errorf("nothing has changed: %w; controlplane show %d prints the text of the revision", err, r.GetRevision())
	}
	return t, changed, nil, err
}

// nameOf is what the text of a revision is called in problems.
func nameOf(revision uint64) string { return fmt.Sprintf("revision %d", revision) }

// History implements fleetv1.FleetServiceServer.
func (s *Service) History(_ context.Context, r *fleetv1.HistoryRequest) (*fleetv1.HistoryResponse, error) {
	list := s.loader.History().List()
	if n := int(r.GetLimit()); n > 0 && n < len(list) {
		list = list[:n]
	}
	answer := &fleetv1.HistoryResponse{Kept: s.loader.History().Kept()}
	for _, e := range list {
		answer.Revisions = append(answer.Revisions, revisionOf(e))
	}
	return answer, nil
}

// revisionOf returns an entry in its wire form.
func revisionOf(e history.Entry) *fleetv1.Revision {
	return &fleetv1.Revision{
		Revision: e.Revision, Version: e.Version, AcceptedAt: timestamppb.New(e.AcceptedAt), Author: e.Author, Message: e.Message,
		Origin: e.Origin, Restores: e.Restores, Size: uint64(e.Size), Endpoints: uint32(e.Endpoints), Outcome: e.Outcome,
	}
}

// Show implements fleetv1.FleetServiceServer.
func (s *Service) Show(_ context.Context, r *fleetv1.ShowRequest) (*fleetv1.ShowResponse, error) {
	e, text, err := s.entry(r.GetRevision())
	if err != nil {
		return nil, err
	}
	return &fleetv1.ShowResponse{Revision: revisionOf(e), Config: text}, nil
}

// entry returns an entry with its text, the newest for 0.
func (s *Service) entry(revision uint64) (history.Entry, []byte, error) {
	if revision == 0 {
		revision = s.loader.History().Newest().Revision
	}
	e, text, err := s.loader.History().Get(revision)
	return e, text, historyError(err)
}

// historyError gives an error of the history its code.
func historyError(err error) error {
	var unknown *history.UnknownError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &unknown):
		return status.Error(codes.NotFound, err.Error())
	}
	return status.Error(codes.DataLoss, err.Error())
}

// Diff implements fleetv1.FleetServiceServer.
func (s *Service) Diff(_ context.Context, r *fleetv1.DiffRequest) (*fleetv1.DiffResponse, error) {
	from, before, err := s.entry(r.GetFrom())
	if err != nil {
		return nil, err
	}
	to, after, err := s.entry(r.GetTo())
	if err != nil {
		return nil, err
	}
	defer giveBack(len(before) + len(after))
	answer := &fleetv1.DiffResponse{To: to.Revision, Changes: changes(from, to, before, after)}
	answer.Unified, err = diff.Unified(nameOf(from.Revision), nameOf(to.Revision), before, after)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return answer, nil
}

// changes says in words what differs between two revisions.
func changes(from, to history.Entry, before, after []byte) []*fleetv1.Change {
	a, err := tableOf(from, before)
	if err != nil {
		return []*fleetv1.Change{noWords(err)}
	}
	b, err := tableOf(to, after)
	if err != nil {
		return []*fleetv1.Change{noWords(err)}
	}
	return diff.Tables(a, b)
}

// tableOf returns the route table of a revision, as data planes have got it.
func tableOf(e history.Entry, text []byte) (*routetablev1.RouteTable, error) {
	cfg, err := config.Load(nameOf(e.Revision), text)
	if err != nil {
		return nil, err
	}
	content, err := compile.Compile(cfg)
	if err != nil {
		return nil, err
	}
	drained := map[string]bool{}
	for _, url := range e.Drained {
		drained[url] = true
	}
	return compile.Drain(content, drained), nil
}

// noWords stands for the differences to a text that an earlier release has accepted.
func noWords(err error) *fleetv1.Change {
	first, _, _ := strings.Cut(err.Error(), "\n")
	return &fleetv1.Change{
		Kind: fleetv1.ChangeKind_CHANGE_KIND_CHANGED, Subject: "the text",
		Detail: fmt.Sprintf("the rules of today refuse it (%s), so only -o unified says what differs", first),
	}
}

// Rollback implements fleetv1.FleetServiceServer.
func (s *Service) Rollback(ctx context.Context, r *fleetv1.RollbackRequest) (*fleetv1.RollbackResponse, error) {
	author, err := signed(ctx, r.GetAuthor(), r.GetMessage())
	if err != nil {
		return nil, err
	}
	r.Author = author
	s.log.Info("rollback requested", "revision", r.GetRevision(), "author", author, "force", r.GetForce())
	t, changed, problems, err := s.loader.Rollback(ctx, r)
	var unknown *history.UnknownError
	switch {
	case errors.As(err, &unknown):
		return nil, historyError(err)
	case ctx.Err() != nil && t == nil:
		return nil, status.FromContextError(ctx.Err()).Err()
	case err != nil:
		s.log.Error("rollback failed", "revision", r.GetRevision(), "error", err)
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	case len(problems) > 0:
		s.log.Warn("rollback refused", "revision", r.GetRevision(), "problems", len(problems), "first", problems[0])
		return &fleetv1.RollbackResponse{Problems: problems}, nil
	}
	return &fleetv1.RollbackResponse{
		Version: t.Version, Revision: t.Revision, Changed: changed, Kept: s.loader.History().Kept(),
		RollingOut: s.loader.RollingOut(t),
	}, nil
}

// signed returns who makes a change: the name in the certificate of the caller, or
// else what the caller says. It refuses what would spoil the history: it is shown in
// terminals, line by line.
func signed(ctx context.Context, author, message string) (string, error) {
	if who, ok := identity.FromContext(ctx); ok {
		author = who.Name
	}
	switch {
	case len(author) > maxAuthor || len(message) > maxMessage:
		return "", status.Errorf(codes.InvalidArgument, "the author or the message is too long: at most %d and %d bytes are kept", maxAuthor, maxMessage)
	case !printable(author) || !printable(strings.ReplaceAll(message, "\n", "")):
		return "", status.Error(codes.InvalidArgument, "the author or the message has characters that cannot be shown")
	}
	return author, nil
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}
