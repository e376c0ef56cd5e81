package fleet

import (
	"fmt"
	"sync"

	"google.golang.org/protobuf/reflect/protoreflect"

	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// worthwhile is by how much a delta must be smaller than the whole table to be sent:
// whoever gets it has to make the table of it, and may have to ask again.
const worthwhile = 2

// deltas are the messages that make a table of others. They are made when the first
// data plane wants them, once, and shared as those of the whole table are.
type deltas struct {
	mu sync.Mutex
	// frames of each delta; none: the whole table is to be sent.
	frames map[start][]*frame
}

// start is the version that a delta starts from, and whether its table is to be prepared
// only.
type start struct {
	version string
	hold    bool
}

// since returns the messages that make the table of a base, to be put in force or to be
// prepared; none when the whole table is to be sent.
func (t *Table) since(base *index, hold bool) []*frame {
	if base == nil {
		return nil
	}
	t.deltas.mu.Lock()
	defer t.deltas.mu.Unlock()
	from := start{base.version, hold}
	frames, made := t.deltas.frames[from]
	if !made {
		frames = t.deltaFrames(base, hold)
		t.deltas.frames[from] = frames
	}
	return frames
}

func (t *Table) deltaFrames(base *index, hold bool) []*frame {
	d := t.index.since(base)
	if len(d.changed) > len(t.index.digests)/worthwhile {
		return nil
	}
	m := &routetablev1.RouteTableDelta{Rest: withoutEndpoints(t.Proto), Removed: d.removed, DecodedSize: uint64(t.payload.decoded)}
	for _, n := range d.changed {
		m.Changed = append(m.Changed, t.Proto.GetEndpoints()[n])
	}
	p, err := pack(m)
	if err != nil {
		panic(fmt.Sprintf("a delta of what has been encoded already: %v", err))
	}
	if len(p.data) > len(t.payload.data)/worthwhile {
		return nil
	}
	return t.chunks(p, &routetablev1.Chunk{Encoding: routetablev1.Encoding_ENCODING_DELTA_GZIP, Base: base.version, Hold: hold})
}

// withoutEndpoints returns all other fields of a table; what they refer to is shared.
func withoutEndpoints(rt *routetablev1.RouteTable) *routetablev1.RouteTable {
	rest := &routetablev1.RouteTable{}
	rt.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		if field.Name() != "endpoints" {
			rest.ProtoReflect().Set(field, value)
		}
		return true
	})
	return rest
}

// baseOf returns what a delta of the table for the session's data plane starts from, nil
// when it is to get the whole table. f.mu is held.
func (f *Fleet) baseOf(s *session, t *Table) *index {
	if !s.deltas || s.whole == t.Version {
		return nil
	}
	return f.versions.of(s.version)
}

// Remember makes a table, which data planes may run, one that deltas can start from. It is
// to be called before the first Publish.
func (f *Fleet) Remember(rt *routetablev1.RouteTable) {
	known := newIndex(rt, routetable.Version(rt))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.versions = f.versions.with(known)
}

// resend takes back a delta of which the data plane cannot make the table, so that it is
// sent the whole one. It can ask for that once for each version. f.mu is held.
func (f *Fleet) resend(s *session, r *routetablev1.Resend) {
	switch version := r.GetVersion(); {
	case s.whole == version:
		return
	case s.flight != nil && s.flight.Version == version:
		s.flight = nil
	case s.preparing(version):
		s.held = nil
	default:
		f.opts.Log.Debug("a table is asked for again that is not in flight", "id", s.id, "session", s.sessionID)
		return
	}
	s.whole = r.GetVersion()
	f.metrics.pushes.WithLabelValues(pushResent).Inc()
	f.opts.Log.Info("data plane wants the whole route table", "id", s.id, "version", r.GetVersion(),
		"reason", shorten(r.GetReason()))
}
