package fleet

import (
	"fmt"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

// maxReport bounds one message of a data plane, in bytes: a heartbeat with as many
// backends that are watched, of the longest names, as there may be is 4.2 MB. What a
// message takes is known only when it is decoded, and reports of two bytes each become
// fifty times that.
const maxReport = 6 << 20

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
	if _, reports := v.(*routetablev1.SubscribeRequest); reports && data.Len() > maxReport {
		return fmt.Errorf("a message of %d bytes, at most %d are allowed", data.Len(), maxReport)
	}
	return c.CodecV2.Unmarshal(data, v)
}
