package fleet

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
	"unicode"

	"reverseproxy/controlplane/internal/traffic"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// Bounds of what a data plane may say about itself.
const (
	maxID         = 200
	maxText       = 300 // session, build, address, version
	maxLabels     = 64
	maxLabelBytes = 256
	maxProblems   = 20
	maxProblem    = 1000
	// maxTrouble is more than is kept of one: data planes of earlier releases send up to
	// 2,051 bytes.
	maxTrouble = 4 << 10
	maxReports = 10_000 // about backends or endpoints, in one heartbeat
	maxSamples = 1000
)

// session is one stream of one data plane, or what is left of the last one.
// Fleet.mu guards all fields but traffic, which is made once, and rows.
type session struct {
	id, sessionID string
	labels        map[string]string
	build         string
	address       string

	connected   bool
	since       time.Time // when it registered
	lastContact time.Time // of any message
	toldStale   bool      // its silence has been logged
	turned      bool      // it is not connected because it was asked to choose anew

	// What it says it runs.
	version  string
	revision uint64
	source   routetablev1.Source
	lifted   bool // the desired revision has been adopted from it

	requests, failures uint64

	// flight is the table that was sent and not yet answered; nil when none.
	flight      *Table
	flightSince time.Time
	// whole is the version that it wants as a whole, because it could not make it of a
	// delta.
	whole string
	// deltas: it understands them.
	deltas bool
	// prepares: it understands tables that it is to hold. held is the one that it has
	// been sent last, and not to put in force yet; nil: none. ready: it has said that it
	// is.
	prepares bool
	held     *Table
	ready    bool
	// told is the last table it was told about with Current.
	told *Table

	// parked is the version it has rejected, with its reasons; empty when none,
	// and as soon as it is told of another: whoever returns to a version that
	// was rejected wants it tried again.
	parked  string
	reasons string

	// place is the one in Fleet.places, toldPlace the one that it was told last.
	place, toldPlace int

	live bool // counted in Fleet.live
	// aliveOwed: a heartbeat is to be answered.
	aliveOwed bool
	// toldLive is the number of live data planes that it was told last, at the time of
	// which announcement.
	toldLive     uint32
	announcement uint64
	// askOwed: it is to be asked for a heartbeat; askBackends: about backends, too.
	askOwed, askBackends bool
	lastBeat             time.Time

	// toldOf are the requests in flight to drained backends that it has told of last,
	// when it ran the version toldUnder; empty after it has changed to another one.
	toldOf    map[string]uint64
	toldUnder string

	rows    rows
	traffic *traffic.Session
	// wake tells the senders that there may be something to be sent; nil without a
	// stream.
	wake func()
}

// poke has the senders look after the session; it never blocks. Fleet.mu is held.
func (s *session) poke() {
	if s.wake != nil {
		s.wake()
	}
}

// ask has the sender ask for a heartbeat.
func (s *session) ask(backends bool) {
	s.askOwed, s.askBackends = true, s.askBackends || backends
	s.poke()
}

// ask has the session's data plane send a heartbeat.
func (f *Fleet) ask(s *session) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.ask(false)
}

// unpark forgets a rejection.
func (s *session) unpark() { s.parked, s.reasons = "", "" }

// newSession checks a Hello and returns the session it opens. The peer is the
// address the stream comes from.
func newSession(h *routetablev1.Hello, peer string) (*session, error) {
	if err := checkHello(h); err != nil {
		return nil, err
	}
	return &session{
		id:        h.GetId(),
		sessionID: h.GetSessionId(),
		labels:    h.GetLabels(),
		build:     h.GetBuild(),
		address:   reachable(h.GetAdminAddress(), peer),
		version:   h.GetState().GetVersion(),
		revision:  h.GetState().GetRevision(),
		source:    h.GetState().GetSource(),
		deltas:    slices.Contains(h.GetFeatures(), routetablev1.Feature_FEATURE_DELTA),
		prepares:  slices.Contains(h.GetFeatures(), routetablev1.Feature_FEATURE_PREPARE),
		place:     noPlace,
		toldPlace: noPlace,
	}, nil
}

// checkHello bounds what is kept and displayed of a data plane.
func checkHello(h *routetablev1.Hello) error {
	if h.GetId() == "" {
		return fmt.Errorf("hello: id is empty")
	}
	if err := checkText("hello: id", h.GetId(), maxID); err != nil {
		return err
	}
	if h.GetSessionId() == "" {
		return fmt.Errorf("hello: session_id is empty")
	}
	for _, f := range []struct{ name, value string }{
		{"hello: session_id", h.GetSessionId()}, {"hello: build", h.GetBuild()},
		{"hello: admin_address", h.GetAdminAddress()}, {"hello: state.version", h.GetState().GetVersion()},
	} {
		if err := checkText(f.name, f.value, maxText); err != nil {
			return err
		}
	}
	if n := len(h.GetLabels()); n > maxLabels {
		return fmt.Errorf("hello: %d labels, at most %d are allowed", n, maxLabels)
	}
	for k, v := range h.GetLabels() {
		if k == "" {
			return fmt.Errorf("hello: a label has an empty name")
		}
		if err := checkText("hello: label", k, maxLabelBytes); err != nil {
			return err
		}
		if err := checkText("hello: label "+k, v, maxLabelBytes); err != nil {
			return err
		}
	}
	return nil
}

// checkReport bounds what is kept and displayed of a later message.
func checkReport(m *routetablev1.SubscribeRequest) error {
	switch m := m.GetMessage().(type) {
	case *routetablev1.SubscribeRequest_Applied:
		return checkText("applied: version", m.Applied.GetVersion(), maxText)
	case *routetablev1.SubscribeRequest_Rejected:
		return checkText("rejected: version", m.Rejected.GetVersion(), maxText)
	case *routetablev1.SubscribeRequest_Prepared:
		return checkText("prepared: version", m.Prepared.GetVersion(), maxText)
	case *routetablev1.SubscribeRequest_Resend:
		return checkText("resend: version", m.Resend.GetVersion(), maxText)
	case *routetablev1.SubscribeRequest_Heartbeat:
		return checkHeartbeat(m.Heartbeat)
	}
	return nil
}

func checkHeartbeat(h *routetablev1.Heartbeat) error {
	if err := checkText("heartbeat: state.version", h.GetState().GetVersion(), maxText); err != nil {
		return err
	}
	for _, l := range []struct {
		name     string
		n, limit int
	}{
		{"backends", len(h.GetBackends()), maxReports},
		{"watched backends", len(h.GetWatched()), MaxDrained},
		{"endpoints", len(h.GetEndpoints()), maxReports},
		{"samples", len(h.GetSamples()), maxSamples},
	} {
		if l.n > l.limit {
			return fmt.Errorf("heartbeat: %d %s, at most %d are allowed", l.n, l.name, l.limit)
		}
	}
	for _, b := range h.GetBackends() {
		for _, f := range []struct {
			name, value string
			limit       int
		}{
			{"heartbeat: endpoint", b.GetEndpoint(), routetable.MaxNameBytes},
			{"heartbeat: url", b.GetUrl(), routetable.MaxURLBytes},
			{"heartbeat: trouble", b.GetTrouble(), maxTrouble},
		} {
			if len(f.value) > f.limit {
				return fmt.Errorf("%s has %d bytes, at most %d are allowed", f.name, len(f.value), f.limit)
			}
		}
	}
	return nil
}

func checkText(name, value string, limit int) error {
	if len(value) > limit {
		return fmt.Errorf("%s has %d bytes, at most %d are allowed", name, len(value), limit)
	}
	if strings.ContainsFunc(value, unicode.IsControl) {
		return fmt.Errorf("%s has a control character", name)
	}
	return nil
}

// reachable completes an admin address whose host is unspecified with the host
// that the stream comes from.
func reachable(admin, peer string) string {
	peerHost, _, err := net.SplitHostPort(peer)
	if err != nil {
		return admin // an in-memory transport has no host
	}
	host, port, err := net.SplitHostPort(admin)
	if err != nil {
		return peerHost
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = peerHost
	}
	return net.JoinHostPort(host, port)
}

// describe joins the problems of a rejection into one bounded line.
func describe(problems []*routetablev1.Problem) string {
	var b strings.Builder
	for i, p := range problems {
		if i > 0 {
			b.WriteString("; ")
		}
		if i == maxProblems {
			fmt.Fprintf(&b, "and %d more", len(problems)-i)
			break
		}
		text := p.GetMessage()
		if p.GetPath() != "" {
			text = p.GetPath() + ": " + text
		}
		b.WriteString(shorten(text))
	}
	if b.Len() == 0 {
		return "no reason was given"
	}
	return b.String()
}

// shorten bounds what a data plane says, and keeps it from controlling a terminal.
func shorten(text string) string {
	if len(text) > maxProblem {
		text = strings.ToValidUTF8(text[:maxProblem], "") + "…"
	}
	return strings.Map(printable, text)
}

// printable keeps what a data plane says from controlling a terminal.
func printable(r rune) rune {
	if unicode.IsControl(r) {
		return ' '
	}
	return r
}
