package fleet

import (
	"cmp"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
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
	// turnLater is how much later the turn of a stream comes on which a table is being
	// prepared: of thousands, some are always due, and none would be ready for long.
	turnLater = time.Second
)

// ServerOptions bound what a stream may take. The zero value is usable.
type ServerOptions struct {
	// HelloTimeout is how long a stream may wait before its first message.
	HelloTimeout time.Duration
	// SendDeadline is how long one message may wait for its receiver to read;
	// then the stream is ended, and the data plane comes back when it can.
	SendDeadline time.Duration
	// Slots is how many streams are being sent a table at the same time.
	Slots int
	// SlotHold is how long a stream may keep its slot. One that takes longer
	// goes on without a slot, so that receivers that have stopped reading delay
	// nobody.
	SlotHold time.Duration
	// Turn is how long a stream lasts, give or take a tenth. Then its data plane is
	// asked to choose a control plane anew, so that a fleet spreads over those that
	// were started later.
	Turn time.Duration
}

// Server is the stream service on top of a Fleet.
type Server struct {
	routetablev1.UnimplementedRouteTableServiceServer
	fleet *Fleet
	opts  ServerOptions
	slots chan struct{}

	stopOnce sync.Once
	stopped  chan struct{}
}

// NewServer returns the service for the fleet.
func NewServer(f *Fleet, opts ServerOptions) *Server {
	opts.HelloTimeout = cmp.Or(opts.HelloTimeout, defaultHelloTimeout)
	opts.SendDeadline = cmp.Or(opts.SendDeadline, defaultSendDeadline)
	opts.SlotHold = cmp.Or(opts.SlotHold, defaultSlotHold)
	opts.Turn = cmp.Or(opts.Turn, defaultTurn)
	opts.Slots = cmp.Or(opts.Slots, defaultSlots)
	return &Server{fleet: f, opts: opts, slots: make(chan struct{}, opts.Slots), stopped: make(chan struct{})}
}

// Stop ends all streams; data planes go on serving and connect to the next
// control plane. It may be called more than once.
func (s *Server) Stop() { s.stopOnce.Do(func() { close(s.stopped) }) }

var (
	errStopping  = status.Error(codes.Unavailable, "the control plane is stopping")
	errNoHello   = status.Error(codes.DeadlineExceeded, "the first message did not come in time")
	errNotHello  = status.Error(codes.InvalidArgument, "the first message must be a hello")
	errNotRead   = status.Error(codes.DeadlineExceeded, "the data plane does not read what it is sent")
	errTurn      = status.Error(codes.Aborted, "choose a control plane anew")
	errNoDesired = status.Error(codes.Unavailable, "there is no configuration yet")
)

// Subscribe serves one data plane until either side ends the stream.
//
// Three goroutines share it: one receives, one sends, and this one waits for
// the first of them to end. It does not wait for the others: a send to a peer
// that does not read is released only by the return of this handler.
func (s *Server) Subscribe(rpc grpc.BidiStreamingServer[routetablev1.SubscribeRequest, routetablev1.SubscribeResponse]) error {
	if s.fleet.Desired() == nil {
		return errNoDesired
	}
	st := &stream{
		server: s, rpc: rpc, ctx: rpc.Context(),
		hello: make(chan *routetablev1.Hello, 1), registered: make(chan struct{}), ended: make(chan error, 1),
	}
	go st.receive()
	late := time.NewTimer(s.opts.HelloTimeout)
	defer late.Stop()
	var hello *routetablev1.Hello
	select {
	case hello = <-st.hello:
	case err := <-st.ended:
		return err
	case <-late.C:
		return errNoHello
	case <-s.stopped:
		return errStopping
	}

	if who, ok := identity.FromContext(st.ctx); ok && who.Name != hello.GetId() {
		return status.Errorf(codes.PermissionDenied, "the data plane says that it is %q, and its certificate is that of %q; "+
			"start it without --id, or issue a certificate for its id", hello.GetId(), who.Name)
	}
	session, err := s.fleet.connect(hello, peerAddress(st.ctx))
	if err != nil {
		code := codes.InvalidArgument
		if errors.Is(err, errFull) {
			code = codes.ResourceExhausted
		}
		return status.Error(code, err.Error())
	}
	st.session = session
	close(st.registered)
	go st.send()
	err = st.wait()
	s.fleet.disconnect(session, reason(err), errors.Is(err, errTurn))
	return err
}

// wait returns why the stream is to end, once it is.
func (st *stream) wait() error {
	t := st.server.opts.Turn
	turn := time.NewTimer(t*9/10 + rand.N(t/5))
	defer turn.Stop()
	for {
		select {
		case err := <-st.ended:
			return err
		case <-turn.C:
			if !st.server.fleet.switches(st.session) {
				return errTurn
			}
			turn.Reset(turnLater)
		case <-st.server.stopped:
			return errStopping
		}
	}
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
	server *Server
	rpc    grpc.BidiStreamingServer[routetablev1.SubscribeRequest, routetablev1.SubscribeResponse]
	ctx    context.Context

	hello      chan *routetablev1.Hello
	registered chan struct{} // closed when session is set
	session    *session
	ended      chan error // the first reason to end
}

// end gives the reason for which the handler is to return, unless there is one.
func (st *stream) end(err error) {
	select {
	case st.ended <- err:
	default:
	}
}

// receive reads until the stream breaks or ends.
func (st *stream) receive() {
	first, err := st.rpc.Recv()
	switch {
	case err != nil:
		st.end(endOf(err))
		return
	case first.GetHello() == nil:
		st.end(errNotHello)
		return
	}
	st.hello <- first.GetHello()
	select {
	case <-st.registered:
	case <-st.ctx.Done():
		return
	}
	for {
		m, err := st.rpc.Recv()
		if err != nil {
			st.end(endOf(err))
			return
		}
		done, err := st.server.fleet.handle(st.session, m)
		switch {
		case errors.Is(err, errOverdue):
			st.end(status.Error(codes.DeadlineExceeded, err.Error()))
			return
		case err != nil:
			st.end(status.Error(codes.InvalidArgument, err.Error()))
			return
		case done:
			st.end(nil)
			return
		}
	}
}

// endOf turns the error of Recv into the outcome of the call: a data plane that
// closes its side is done.
func endOf(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// send brings the data plane to its table, again and again. It is the
// only one to send on the stream.
func (st *stream) send() {
	for {
		todo, goal := st.server.fleet.next(st.session)
		var err error
		switch todo {
		case stepWait:
			select {
			case <-st.session.wake:
			case <-goal.Superseded():
			case <-st.ctx.Done():
				return
			}
		case stepPlacement:
			err = st.write(st.server.fleet.takePlacement(st.session))
		case stepAlive:
			err = st.writeAlive()
		case stepReport:
			err = st.write(&routetablev1.SubscribeResponse{Message: &routetablev1.SubscribeResponse_Report{
				Report: st.server.fleet.takeReport(st.session),
			}})
		case stepCurrent:
			err = st.write(&routetablev1.SubscribeResponse{Message: &routetablev1.SubscribeResponse_Current{
				Current: &routetablev1.Current{Version: goal.of(st.session).Version, Revision: goal.of(st.session).Revision},
			}})
		case stepTable:
			err = st.inSlot(st.sendTable)
		case stepHold:
			err = st.inSlot(st.sendHold)
		case stepDiscard:
			err = st.write(st.server.fleet.takeDiscard(st.session))
		case stepCommit:
			if m := st.server.fleet.takeCommit(st.session); m != nil {
				err = st.write(m)
			}
		}
		if err != nil {
			st.end(err)
			return
		}
	}
}

// inSlot waits for a slot to send a table in. It returns early when the session has
// something else to do.
func (st *stream) inSlot(send func() error) error {
	slots := st.server.slots
	select {
	case slots <- struct{}{}:
	case <-st.session.wake:
		return nil
	case <-st.ctx.Done():
		return st.ctx.Err()
	}
	free := sync.OnceFunc(func() { <-slots })
	defer free()
	defer time.AfterFunc(st.server.opts.SlotHold, free).Stop()
	return send()
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
