package subscribe

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"reverseproxy/dataplane/internal/activate"
	"reverseproxy/proto/identity"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

const (
	// maxMessageSize is for one chunk; tables may be larger.
	maxMessageSize = 4 << 20
	// goodbyeTime is how long a control plane may take to end the stream after a
	// goodbye.
	goodbyeTime = time.Second
)

// Why a session ended, when the reason is on this side.
var (
	errSilent  = errors.New("no answer from the control plane")
	errClosed  = errors.New("the control plane closed the stream")
	errEnded   = errors.New("the control plane ended the stream, its log says why")
	errStopped = errors.New("the data plane stops")
	// errTurn: the control plane works, but wants its data planes to spread.
	errTurn = errors.New("the control plane asks to choose one anew")
)

// CheckAddress reports whether a control plane may be reached at address: it must
// be host:port, and on this machine unless anywhere is set, because the stream is
// encrypted or need not be.
func CheckAddress(address string, anywhere bool) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("control plane address %q: want host:port", address)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("control plane address %q: the port is not a number from 1 to 65535", address)
	}
	if host == "" {
		return fmt.Errorf("control plane address %q: the host is missing", address)
	}
	if anywhere || host == "localhost" {
		return nil
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.Unmap().IsLoopback() {
		return nil
	}
	return fmt.Errorf("control plane address %q is not on this machine and the stream would not be encrypted; "+
		"give --tls-ca, --tls-cert and --tls-key, or --insecure to accept that", address)
}

// session is one stream to one control plane.
type session struct {
	s      *Subscriber
	creds  *identity.Client
	stream grpc.BidiStreamingClient[routetablev1.SubscribeRequest, routetablev1.SubscribeResponse]
	ctx    context.Context // of the stream
	cancel context.CancelCauseFunc
	watch  *watchdog
	out    chan *routetablev1.SubscribeRequest // reports; the sender owns the stream's sending side
	asked  chan *routetablev1.Report           // one slot
	began  time.Time

	// heard: the control plane has said something. Belongs to the receiver.
	heard bool
	// settled: the control plane and this data plane have agreed on a version, so
	// that the next reconnect need not be slow.
	settled atomic.Bool
}

// session opens a stream and follows it to its end. The stream outlives the end
// of stop by the goodbye.
func (s *Subscriber) session(stop context.Context, address string) (*session, error) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(stop))
	defer cancel(nil)
	x := &session{
		s: s, creds: identity.NewClient(s.o.Certificates), ctx: ctx, cancel: cancel, began: time.Now(),
		out: make(chan *routetablev1.SubscribeRequest), asked: make(chan *routetablev1.Report, 1),
	}
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(x.creds),
		grpc.WithNoProxy(),
		grpc.WithUserAgent("reverseproxy-dataplane/"+s.o.Build),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: s.o.Silence}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageSize)),
	)
	if err != nil {
		return x, err
	}
	// A new stream on the same connection would reach the same peer, so the
	// connection goes with its stream.
	defer conn.Close()

	x.watch = newWatchdog(s.o.Silence, func() { cancel(errSilent) })
	defer x.watch.stop()

	x.watch.arm()
	unhook := context.AfterFunc(stop, func() { cancel(errStopped) })
	x.stream, err = routetablev1.NewRouteTableServiceClient(conn).Subscribe(ctx)
	if !unhook() {
		return x, errStopped
	}
	if err != nil {
		return x, x.reason(err)
	}
	x.watch.feed()

	var g sync.WaitGroup
	g.Go(func() { x.send(stop) })
	err = x.receive(address)
	s.connected.Store(false)
	cancel(err)
	g.Wait()
	return x, err
}

// reason prefers this side's reason for the end of the stream, and why there is no
// agreement about certificates, to what the library makes of it.
func (x *session) reason(err error) error {
	if cause := context.Cause(x.ctx); cause != nil {
		return cause
	}
	switch {
	case errors.Is(err, io.EOF):
		return errClosed
	case status.Code(err) == codes.Aborted:
		return errTurn
	case status.Code(err) == codes.Canceled:
		return errEnded
	}
	if trouble := x.creds.Trouble(); trouble != nil && !x.heard {
		return trouble
	}
	return err
}

// send is the only writer of the stream: hello, heartbeats, reports, goodbye. An
// error is left to the receiver, which learns the status of the stream.
func (x *session) send(stop context.Context) {
	if x.stream.Send(x.s.hello()) != nil {
		return
	}
	// The first heartbeat goes at once: a control plane that accepts connections
	// and does nothing else is found out after Silence.
	tick := time.NewTicker(x.s.o.Heartbeat)
	defer tick.Stop()
	pulse := new(time.Ticker) // never ticks
	if len(x.s.o.ControlPlanes) > 1 {
		pulse = time.NewTicker(x.s.o.Pulse)
		defer pulse.Stop()
	}
	reporter := x.s.newReporter()
	for m := reporter.heartbeat(true); ; {
		if m.GetHeartbeat() != nil {
			x.watch.arm()
		}
		if x.stream.Send(m) != nil {
			return
		}
		select {
		case <-tick.C:
			m = reporter.heartbeat(true)
		case <-pulse.C:
			m = reporter.heartbeat(false)
		case r := <-x.asked:
			reporter.watched = r.GetWatch()
			m = reporter.heartbeat(r.GetBackends())
		case m = <-x.out:
		case <-x.ctx.Done():
			return
		case <-stop.Done():
			x.goodbye()
			return
		}
	}
}

// goodbye ends the stream from this side and gives the control plane a moment
// to read it.
func (x *session) goodbye() {
	time.AfterFunc(goodbyeTime, func() { x.cancel(errStopped) })
	if x.stream.Send(&routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Goodbye{Goodbye: &routetablev1.Goodbye{}}}) == nil {
		_ = x.stream.CloseSend() // the stream is given up either way
	}
}

// report hands a message to the sender; it is dropped when the stream is over.
func (x *session) report(m *routetablev1.SubscribeRequest) {
	select {
	case x.out <- m:
	case <-x.ctx.Done():
	}
}

// receive reads the stream to its end.
func (x *session) receive(address string) error {
	var chunks assembly
	for {
		m, err := x.stream.Recv()
		if err != nil {
			return x.reason(err)
		}
		x.watch.feed()
		x.s.lastContact.Store(time.Now().UnixMilli())
		if !x.heard {
			x.heard = true
			x.s.connected.Store(true)
			x.s.o.Log.Info("control plane connected", "controlplane", address)
		}
		switch m := m.GetMessage().(type) {
		case *routetablev1.SubscribeResponse_Current:
			x.s.submit(task{session: x, version: m.Current.GetVersion(), revision: m.Current.GetRevision()})
		case *routetablev1.SubscribeResponse_Chunk:
			o, err := chunks.add(m.Chunk)
			var refused *refusal
			switch {
			case errors.As(err, &refused):
				x.take(task{session: x, version: refused.version, revision: refused.revision, refused: refused}, m.Chunk.GetHold())
			case err != nil:
				return err
			case o != nil:
				x.take(task{session: x, version: o.version, revision: o.revision, offer: o, source: activate.Stream}, m.Chunk.GetHold())
			}
		case *routetablev1.SubscribeResponse_Commit:
			put(x.s.holds, held{what: commit, task: task{
				session: x, version: m.Commit.GetVersion(), revision: m.Commit.GetRevision(), source: activate.Stream,
			}})
		case *routetablev1.SubscribeResponse_Discard:
			put(x.s.holds, held{what: discard})
		case *routetablev1.SubscribeResponse_Alive:
			x.alive(m.Alive.GetDataPlanes())
		case *routetablev1.SubscribeResponse_Report:
			x.ask(m.Report)
		case *routetablev1.SubscribeResponse_Placement:
			x.s.o.Place.Store(m.Placement.GetPlace())
		default:
			// Kinds of a later release are ignored.
		}
	}
}

// take hands a whole table on, to be put in force or only to be prepared.
func (x *session) take(t task, hold bool) {
	if hold {
		put(x.s.holds, held{what: prepare, task: t})
		return
	}
	// What was to be ready before is not any more, in whichever order they are worked off.
	put(x.s.holds, held{what: discard})
	x.s.submit(t)
}

// alive takes note of how many data planes there are. A control plane that has just
// started, or taken over, counts those that have come back so far: a lower number is
// believed only of a stream that has lasted for as long as that may take.
func (x *session) alive(dataPlanes uint32) {
	fleet, fewer := x.s.o.Fleet, int64(dataPlanes) < x.s.o.Fleet.Size()
	if dataPlanes > 0 && (!fewer || time.Since(x.began) >= 2*x.s.o.MaxDelay) {
		fleet.Set(dataPlanes)
	}
}

// hello is the first message.
func (s *Subscriber) hello() *routetablev1.SubscribeRequest {
	return &routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Hello{Hello: &routetablev1.Hello{
		Id:           s.o.ID,
		SessionId:    rand.Text(),
		Labels:       s.o.Labels,
		Build:        s.o.Build,
		AdminAddress: s.o.AdminAddress,
		State:        s.state(),
		Features: []routetablev1.Feature{
			routetablev1.Feature_FEATURE_PREPARE, routetablev1.Feature_FEATURE_DELTA, routetablev1.Feature_FEATURE_TRAFFIC,
		},
	}}}
}

func (s *Subscriber) heartbeat() *routetablev1.SubscribeRequest {
	all := s.o.Metrics.Totals()
	return &routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Heartbeat{Heartbeat: &routetablev1.Heartbeat{
		State: s.state(), RequestsTotal: all.Requests, FailuresTotal: all.Failures,
		Traffic: &routetablev1.Traffic{
			Requests: all.Requests, ServerErrors: all.ServerErrors, GatewayErrors: all.GatewayErrors, Durations: all.Durations[:],
		},
	}}}
}

// state is what serves requests now.
func (s *Subscriber) state() *routetablev1.State {
	f := s.o.Activator.InForce()
	if f == nil {
		return &routetablev1.State{}
	}
	source := routetablev1.Source_SOURCE_STREAM
	if f.Source == activate.Disk {
		source = routetablev1.Source_SOURCE_DISK
	}
	return &routetablev1.State{Version: f.Table.Version, Revision: f.Revision, Source: source}
}

// watchdog barks when it was armed and then not fed for the time of silence.
type watchdog struct {
	silence time.Duration

	mu    sync.Mutex
	timer *time.Timer
	armed bool
}

func newWatchdog(silence time.Duration, bark func()) *watchdog {
	w := &watchdog{silence: silence, timer: time.AfterFunc(time.Hour, bark)}
	w.timer.Stop()
	return w
}

// arm starts the clock unless it runs.
func (w *watchdog) arm() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.armed {
		w.armed = true
		w.timer.Reset(w.silence)
	}
}

// feed stops the clock: something has been heard.
func (w *watchdog) feed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.armed = false
	w.timer.Stop()
}

func (w *watchdog) stop() { w.feed() }
