package fleet

import (
	"cmp"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"reverseproxy/proto/identity"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// Defaults of ServerOptions.
const (
	defaultHelloTimeout = 5 * time.Second
	defaultSendDeadline = 10 * time.Second
	defaultSlotHold     = 200 * time.Millisecond
	defaultSlots        = 64
	defaultTurn         = 30 * time.Minute
)

// ServerOptions bound what a stream may take. The zero value is usable.
type ServerOptions struct {
	// HelloTimeout is how long a stream may wait before its first message.
	HelloTimeout time.Duration
	// SendDeadline is how long one message may wait for its receiver to read;
	// then the stream is ended, and the data plane comes back when it can.
	SendDeadline time.Duration
	// Slots is how many senders may be at work, each on a stream of its own.
	Slots int
	// SlotHold is how long a sender may be occupied with a stream. One that takes longer
	// goes on, and gives its slot to another, so that receivers that have stopped reading
	// delay nobody.
	SlotHold time.Duration
	// Turn is how long a stream lasts, give or take a tenth. Then, with its next message,
	// its data plane is asked to choose a control plane anew, so that a fleet spreads over
	// those that were started later.
	Turn time.Duration
}

// Server is the stream service on top of a Fleet.
type Server struct {
	routetablev1.UnimplementedRouteTableServiceServer
	fleet   *Fleet
	opts    ServerOptions
	senders *senders

	// serving ends with Stop.
	serving context.Context
	stop    context.CancelFunc
}

// NewServer returns the service for the fleet. The gRPC server must have the
// GRPCOptions.
func NewServer(f *Fleet, opts ServerOptions) *Server {
	opts.HelloTimeout = cmp.Or(opts.HelloTimeout, defaultHelloTimeout)
	opts.SendDeadline = cmp.Or(opts.SendDeadline, defaultSendDeadline)
	opts.SlotHold = cmp.Or(opts.SlotHold, defaultSlotHold)
	opts.Turn = cmp.Or(opts.Turn, defaultTurn)
	opts.Slots = cmp.Or(opts.Slots, defaultSlots)
	s := &Server{fleet: f, opts: opts, senders: &senders{hold: opts.SlotHold, free: opts.Slots}}
	s.serving, s.stop = context.WithCancel(context.Background())
	return s
}

// Stop ends all streams; data planes go on serving and connect to the next
// control plane. It may be called more than once.
func (s *Server) Stop() { s.stop() }

var (
	errStopping  = status.Error(codes.Unavailable, "the control plane is stopping")
	errNoHello   = status.Error(codes.DeadlineExceeded, "the first message did not come in time")
	errNotHello  = status.Error(codes.InvalidArgument, "the first message must be a hello")
	errNotRead   = status.Error(codes.DeadlineExceeded, "the data plane does not read what it is sent")
	errTurn      = status.Error(codes.Aborted, "choose a control plane anew")
	errNoDesired = status.Error(codes.Unavailable, "there is no configuration yet")
)

// Subscribe serves one data plane until either side ends the stream. The goroutine that
// gRPC has for it receives; the senders send.
func (s *Server) Subscribe(rpc grpc.BidiStreamingServer[routetablev1.SubscribeRequest, routetablev1.SubscribeResponse]) error {
	if s.fleet.Desired() == nil {
		return errNoDesired
	}
	st := &stream{server: s, rpc: rpc, ctx: rpc.Context()}
	defer context.AfterFunc(s.serving, func() { st.end(errStopping) })()
	hello, err := st.hello()
	if hello == nil {
		return err
	}
	if who, ok := identity.FromContext(st.ctx); ok && who.Name != hello.GetId() {
		return status.Errorf(codes.PermissionDenied, "the data plane says that it is %q, and its certificate is that of %q; "+
			"start it without --id, or issue a certificate for its id", hello.GetId(), who.Name)
	}
	if st.session, err = newSession(hello, peerAddress(st.ctx)); err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	st.session.wake = func() { s.senders.wake(st) }
	if err := s.fleet.connect(st.session); err != nil {
		return status.Error(codes.ResourceExhausted, err.Error())
	}
	defer time.AfterFunc(s.opts.Turn*9/10+rand.N(s.opts.Turn/5), st.due).Stop()
	err = st.receive()
	s.fleet.disconnect(st.session, reason(err), errors.Is(err, errTurn))
	return err
}

// peerAddress returns where the stream comes from.
func peerAddress(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok {
		return p.Addr.String()
	}
	return ""
}

// reason says, for the log, why a stream ended.
func reason(err error) string {
	switch {
	case err == nil:
		return "closed by the data plane"
	case status.Code(err) == codes.Canceled:
		return "connection lost"
	}
	return status.Convert(err).Message()
}

// stream is one call of Subscribe.
type stream struct {
	server  *Server
	rpc     grpc.BidiStreamingServer[routetablev1.SubscribeRequest, routetablev1.SubscribeResponse]
	ctx     context.Context
	session *session
	sending sending
	// turn: its data plane is to choose a control plane anew.
	turn atomic.Bool
}

// end ends the stream, whatever the handler waits for. The first reason counts; it is
// for the log: gRPC tells the data plane that the stream was canceled.
func (st *stream) end(err error) { endOf(st.ctx)(err) }

// due notes that the stream has lasted long enough, and asks for a message.
func (st *stream) due() {
	st.turn.Store(true)
	st.server.fleet.ask(st.session)
}

// hello waits for the first message. Without one the error is what the handler is to
// return.
func (st *stream) hello() (*routetablev1.Hello, error) {
	defer time.AfterFunc(st.server.opts.HelloTimeout, func() { st.end(errNoHello) }).Stop()
	first, err := st.recv()
	if first != nil && first.GetHello() == nil {
		err = errNotHello
	}
	return first.GetHello(), err
}

// receive takes messages until the stream ends, and returns the reason.
func (st *stream) receive() error {
	for {
		m, err := st.recv()
		if m == nil {
			return err
		}
		done, err := st.server.fleet.handle(st.session, m)
		switch {
		case errors.Is(err, errOverdue):
			return status.Error(codes.DeadlineExceeded, err.Error())
		case err != nil:
			return status.Error(codes.InvalidArgument, err.Error())
		case done:
			return nil
		case st.turn.Load() && !st.server.fleet.switches(st.session):
			// Of thousands some are always due: if they left meanwhile, none would have a
			// table ready for long.
			return errTurn
		}
	}
}

// recv receives a message, or returns why the stream ends; nil when the data plane has
// closed its side.
func (st *stream) recv() (*routetablev1.SubscribeRequest, error) {
	m, err := st.rpc.Recv()
	switch cause := context.Cause(st.ctx); {
	case err == nil:
		return m, nil
	case errors.Is(err, io.EOF):
		return nil, nil
	case cause != nil && !errors.Is(cause, context.Canceled):
		return nil, cause
	}
	return nil, err
}

// send brings the data plane to its table, and reports whether it waits for its turn to
// be sent one, unless this is it. One sender at a time sends on a stream.
func (st *stream) send(turn bool) (waits bool) {
	f := st.server.fleet
	for st.ctx.Err() == nil {
		todo, goal := f.next(st.session)
		var err error
		switch todo {
		case stepWait:
			return false
		case stepPlacement:
			err = st.write(f.takePlacement(st.session))
		case stepAlive:
			err = st.writeAlive()
		case stepReport:
			err = st.write(&routetablev1.SubscribeResponse{Message: &routetablev1.SubscribeResponse_Report{
				Report: f.takeReport(st.session),
			}})
		case stepCurrent:
			err = st.write(&routetablev1.SubscribeResponse{Message: &routetablev1.SubscribeResponse_Current{
				Current: &routetablev1.Current{Version: goal.of(st.session).Version, Revision: goal.of(st.session).Revision},
			}})
		case stepTable, stepHold:
			if !turn {
				return true
			}
			turn = false
			if todo == stepTable {
				err = st.sendTable()
			} else {
				err = st.sendHold()
			}
		case stepDiscard:
			err = st.write(f.takeDiscard(st.session))
		case stepCommit:
			if m := f.takeCommit(st.session); m != nil {
				err = st.write(m)
			}
		}
		if err != nil {
			st.end(err)
		}
	}
	return false
}

// sendHold sends the table that is prepared, as far as it is.
func (st *stream) sendHold() error {
	p, base := st.server.fleet.beginHold(st.session)
	if p == nil {
		return nil
	}
	frames, sent := p.frames, st.server.fleet.metrics.whole
	if delta := p.table.since(base, true); len(delta) > 0 {
		frames, sent = delta, st.server.fleet.metrics.delta
	}
	sent.tables.Inc()
	for i, f := range frames {
		if i > 0 {
			if !st.server.fleet.prepares(p) {
				return nil
			}
			if err := st.writeAlive(); err != nil {
				return err
			}
		}
		if err := st.write(f); err != nil {
			return err
		}
		sent.bytes.Add(float64(f.size()))
	}
	return nil
}

// sendTable sends the data plane's table, as far as it stays that.
func (st *stream) sendTable() error {
	t, base := st.server.fleet.begin(st.session)
	if t == nil {
		return nil
	}
	frames, sent := t.frames, st.server.fleet.metrics.whole
	if delta := t.since(base, false); len(delta) > 0 {
		frames, sent = delta, st.server.fleet.metrics.delta
	}
	sent.tables.Inc()
	for i, f := range frames {
		if i > 0 {
			if st.server.fleet.goal.Load().of(st.session) != t {
				st.server.fleet.abandon(st.session)
				return nil
			}
			if err := st.writeAlive(); err != nil {
				return err
			}
		}
		if err := st.write(f); err != nil {
			return err
		}
		sent.bytes.Add(float64(f.size()))
	}
	return nil
}

// writeAlive sends a sign of life if one is owed.
func (st *stream) writeAlive() error {
	m := st.server.fleet.takeAlive(st.session)
	if m == nil {
		return nil
	}
	return st.write(m)
}

// write sends one message, which may be shared with other streams, and ends the
// stream when that takes too long.
func (st *stream) write(m any) error {
	defer time.AfterFunc(st.server.opts.SendDeadline, func() { st.end(errNotRead) }).Stop()
	return st.rpc.SendMsg(m)
}
