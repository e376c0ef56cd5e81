package fleet

import (
	"fmt"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// maxReport bounds one message of a data plane, in bytes: a heartbeat with as many
// backends that are watched, of the longest names, as there may be is 4.2 MB. What a
// message takes is known only when it is decoded, and reports of two bytes each become
// fifty times that: in those above maxUncounted they are counted before.
const (
	maxReport    = 6 << 20
	maxUncounted = 64 << 10
)

// frame is a message that is marshalled already. It may be sent on any number
// of streams at the same time; nobody writes to its bytes.
//
// The mem package of gRPC is experimental: it is used in this file only.
type frame struct{ parts mem.BufferSlice }

// newFrame returns the message whose encoding is the parts, one after another.
func newFrame(parts ...[]byte) *frame {
	f := &frame{}
	for _, p := range parts {
		f.parts = append(f.parts, mem.SliceBuffer(p))
	}
	return f
}

// size returns the bytes of the message.
func (f *frame) size() int { return f.parts.Len() }

// codec sends frames as they are and everything else as protobuf. It decodes nothing
// that a data plane has no reason to send.
type codec struct{ encoding.CodecV2 }

// newCodec returns the server option that lets streams send frames.
func newCodec() grpc.ServerOption {
	return grpc.ForceServerCodecV2(codec{encoding.GetCodecV2(proto.Name)})
}

// Marshal returns the encoding of a frame or of a protobuf message. The slice
// of a frame is a copy, its buffers are shared: releasing a mem.SliceBuffer does
// nothing.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if f, ok := v.(*frame); ok {
		return slices.Clone(f.parts), nil
	}
	return c.CodecV2.Marshal(v)
}

// Unmarshal decodes a protobuf message.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if _, reports := v.(*routetablev1.SubscribeRequest); !reports || data.Len() <= maxUncounted {
		return c.CodecV2.Unmarshal(data, v)
	}
	if data.Len() > maxReport {
		return fmt.Errorf("a message of %d bytes, at most %d are allowed", data.Len(), maxReport)
	}
	whole := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer whole.Free()
	if err := checkLists(whole.ReadOnlyData()); err != nil {
		return err
	}
	return c.CodecV2.Unmarshal(mem.BufferSlice{whole}, v)
}

// place is where a list is: the number of the message in a SubscribeRequest, and that of
// the field in the message.
type place struct{ message, field protowire.Number }

// bound is how many elements a repeated field may have.
type bound struct {
	name string
	most int
}

// lists are those whose elements take more memory than bytes.
var lists = func() map[place]bound {
	all := map[place]bound{}
	messages := (&routetablev1.SubscribeRequest{}).ProtoReflect().Descriptor().Fields()
	for _, l := range []struct {
		message, field protoreflect.Name
		most           int
	}{
		{"hello", "labels", maxLabels},
		{"rejected", "problems", maxReports},
		{"heartbeat", "backends", maxReports},
		{"heartbeat", "watched", MaxDrained},
		{"heartbeat", "endpoints", maxReports},
		{"heartbeat", "samples", maxSamples},
	} {
		m := messages.ByName(l.message)
		at := place{m.Number(), m.Message().Fields().ByName(l.field).Number()}
		all[at] = bound{fmt.Sprintf("%s: %s", l.message, l.field), l.most}
	}
	return all
}()

// checkLists counts the elements of the lists in an encoded SubscribeRequest. A message
// may be there in several parts; bytes that are none are left to the decoder to refuse.
func checkLists(encoded []byte) (err error) {
	counts := map[place]int{}
	_ = routetable.Walk(encoded, func(m routetable.Field) bool {
		if m.Kind != protowire.BytesType {
			return true
		}
		_ = routetable.Walk(encoded[m.Value:m.End], func(f routetable.Field) bool {
			at := place{m.Number, f.Number}
			l, counted := lists[at]
			if !counted || f.Kind != protowire.BytesType {
				return true
			}
			counts[at]++
			if counts[at] > l.most {
				err = fmt.Errorf("%s: at most %d are allowed", l.name, l.most)
			}
			return err == nil
		})
		return err == nil
	})
	return err
}
