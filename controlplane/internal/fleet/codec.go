package fleet

import (
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
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

// codec sends frames as they are and everything else as protobuf.
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
