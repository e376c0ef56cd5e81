package fleet

import (
	"fmt"
	"sync"

	"google.golang.org/protobuf/reflect/protoreflect"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

// worthwhile is by how much a delta must be smaller than the whole table to be sent:
// whoever gets it has to make the table of it, and may have to ask again.
const worthwhile = 2

// deltas are the messages that make a table of others. They are made when the first
// data plane wants them, once, and shared as those of the whole table are.
type deltas struct {
	mu sync.Mutex
	// frames by the version of the base; none: the whole table is to be sent.
	frames map[string][]*frame
}

// since returns the messages that make the table of a base; none when the whole table
// is to be sent.
func (t *Table) since(base *index) []*frame {
	if base == nil {
		return nil
	}
	t.deltas.mu.Lock()
	defer t.deltas.mu.Unlock()
	frames, made := t.deltas.frames[base.version]
	if !made {
		frames = t.deltaFrames(base)
		t.deltas.frames[base.version] = frames
	}
	return frames
}

func (t *Table) deltaFrames(base *index) []*frame {
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
	return t.chunks(p, &routetablev1.Chunk{Encoding: routetablev1.Encoding_ENCODING_DELTA_GZIP, Base: base.version})
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

// resend takes back a delta of which the data plane cannot make the table, so that it is
// sent the whole one. It can ask for that once for each version. f.mu is held.
func (f *Fleet) resend(s *session, r *routetablev1.Resend) {
	if s.flight == nil || s.flight.Version != r.GetVersion() || s.whole == r.GetVersion() {
		f.opts.Log.Debug("a table is asked for again that is not in flight", "id", s.id, "session", s.sessionID)
		return
	}
	s.flight, s.whole = nil, r.GetVersion()
	f.metrics.pushes.WithLabelValues(pushResent).Inc()
	f.opts.Log.Info("data plane wants the whole route table", "id", s.id, "version", r.GetVersion(),
		"reason", shorten(r.GetReason()))
}
