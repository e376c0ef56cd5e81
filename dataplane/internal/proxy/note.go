package proxy

import (
	crand "crypto/rand"
	"encoding/hex"
	"math/rand/v2"
	"time"

	"reverseproxy/dataplane/internal/accesslog"
	"reverseproxy/dataplane/internal/http1"
	"reverseproxy/dataplane/internal/table"
	"reverseproxy/proto/routetable"
)

const (
	// maxID is the longest request id that is taken over from a client.
	maxID = 128
	// maxNotes is how many notes are kept for reuse: as many as there were
	// requests in progress at once, within reason. A note takes about 1 KiB.
	maxNotes = 4096
	// noteBytes is room for the text of a note of usual size; those that have
	// grown over maxNoteBytes are left to the garbage collector.
	noteBytes    = 512
	maxNoteBytes = 4 << 10
)

// note is what is kept about a request until it has been answered, beyond what
// every request needs: its id, and what the access log tells about it, since the
// bytes of its head are gone by then. Its methods may be called on nil.
type note struct {
	id   []byte // nil: requests have none; else in room
	room [maxID]byte

	logged  bool
	version string // of the route table that the request was routed by
	text    []byte // the values that the line tells, one behind the other
	ends    [values]int32

	head uint64 // bytes of heads sent to the client
	at   int64  // when the backend's response head had come; 0: none has
	why  string // what failed the request; empty: nothing
}

// The values of a note.
const (
	methodValue = iota
	hostValue
	targetValue
	refererValue
	agentValue
	values // how many there are
)

// note makes a note of a request when the route table asks for it; r is nil when
// there is no valid head.
func (e *Engine) note(c *Conn, t *table.Table, r *http1.Request) {
	logged := t.AccessLog != nil && e.lines != nil && e.sampled(t.AccessLog.PerMillion)
	if !logged && !t.RequestID {
		return
	}
	n := e.newNote()
	c.x.note = n
	if t.RequestID {
		e.identify(n, r)
	}
	if n.logged = logged; !logged {
		return
	}
	n.version = t.Version
	if r == nil {
		return
	}
	raw := r.Raw
	n.add(methodValue, r.MethodText.Of(raw))
	n.add(hostValue, r.Authority.Of(raw))
	n.add(targetValue, r.Target.Of(raw))
	from, _ := r.Get(http1.Referer)
	n.add(refererValue, from.Of(raw))
	agent, _ := r.Get(http1.UserAgent)
	n.add(agentValue, agent.Of(raw))
}

// sampled decides whether one request is logged.
func (e *Engine) sampled(perMillion uint32) bool {
	const million = routetable.SamplePerMillion
	return perMillion == million || uint32(e.random.Uint64()>>32*million>>32) < perMillion
}

// identify gives a request its id: the client's, or a new one of 128 random bits.
func (e *Engine) identify(n *note, r *http1.Request) {
	if r != nil {
		if id := clientsID(r); id != nil {
			n.id = append(n.room[:0], id...)
			return
		}
	}
	var bits [16]byte
	_, _ = e.random.Read(bits[:]) // which never fails
	n.id = hex.AppendEncode(n.room[:0], bits[:])
}

// newRandom returns a generator whose numbers nobody can foretell.
func newRandom() *rand.ChaCha8 {
	var seed [32]byte
	_, _ = crand.Read(seed[:]) // which never fails
	return rand.NewChaCha8(seed)
}

func (n *note) add(value int, v []byte) {
	// One byte more than is told, so that it shows that there was more.
	n.text = append(n.text, v[:min(len(v), accesslog.MaxValue+1)]...)
	n.ends[value] = int32(len(n.text))
}

func (n *note) value(i int) []byte {
	start := int32(0)
	if i > 0 {
		start = n.ends[i-1]
	}
	return n.text[start:n.ends[i]]
}

// requestID returns the id of the request, nil when requests have none.
func (n *note) requestID() []byte {
	if n == nil {
		return nil
	}
	return n.id
}

// sentHead takes note of a response head that is sent to the client.
func (n *note) sentHead(size int) {
	if n != nil {
		n.head += uint64(size)
	}
}

// answered takes note of the backend's response, whose head is sent on.
func (n *note) answered(now int64, size int) {
	if n != nil {
		n.at = now
		n.head += uint64(size)
	}
}

// failed takes note of what has failed the request.
func (n *note) failed(why string) {
	if n != nil {
		n.why = why
	}
}

// endNote logs a request whose exchange is over and gives up its note. Where to
// and how is up to the table in force by then: a file that is not wanted any more
// is not written to for as long as a tunnel lasts.
func (e *Engine) endNote(c *Conn, code int) {
	x, n := c.x, c.x.note
	x.note = nil
	if t := e.live.Load(); n.logged && t.AccessLog != nil {
		l := &e.line
		*l = accesslog.Line{
			Time: e.wall(x.started), Client: c.clientAddress(),
			Method: n.value(methodValue), Host: n.value(hostValue), Target: n.value(targetValue), Minor: x.minor,
			Referer: n.value(refererValue), UserAgent: n.value(agentValue), RequestID: n.id,
			Status: code, BytesIn: x.in, BytesOut: x.out, BodyOut: x.out - min(n.head, x.out),
			Duration: time.Duration(e.now - x.started), Backend: -1,
			Endpoint: routetable.NoEndpoint, Version: n.version, ByProxy: x.byProxy, Error: n.why,
		}
		if x.endpoint != nil {
			l.Endpoint = x.endpoint.Name
		}
		l.Attempts = x.attempts()
		if x.member != nil {
			l.URL = x.member.URL
		}
		if n.at > 0 {
			l.Backend = time.Duration(n.at - x.chosen)
		}
		e.lines.Add(t.AccessLog.Path, t.AccessLog.Format, l)
	}
	e.putNote(n)
}

func (e *Engine) newNote() *note {
	if last := len(e.notes) - 1; last >= 0 {
		n := e.notes[last]
		e.notes = e.notes[:last]
		return n
	}
	return &note{text: make([]byte, 0, noteBytes)}
}

func (e *Engine) putNote(n *note) {
	if cap(n.text) > maxNoteBytes || len(e.notes) >= maxNotes {
		return
	}
	n.id, n.logged, n.version, n.why, n.text = nil, false, "", "", n.text[:0]
	n.ends, n.head, n.at = [values]int32{}, 0, 0
	e.notes = append(e.notes, n)
}

// wall returns a moment of now's time in Unix nanoseconds. The wall clock is read
// once a second: it is slower than all the rest of a line.
func (e *Engine) wall(at int64) int64 {
	if second := e.now/1e9 + 1; second != e.wallAt {
		e.wallAt = second
		e.epoch = e.clock().UnixNano() - e.now
	}
	return e.epoch + at
}
