package routetable

import (
	"errors"
	"fmt"
	"iter"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

// maxScanProblems is how many problems end a Scan: the bytes come from the
// network, and a table of nothing but mistakes must not cost much more memory
// than it has bytes.
const maxScanProblems = 10_000

// Scan decodes a marshalled route table, checks every rule of Validate but that
// of ties, and computes the Version, with one endpoint as a message at a time: a
// table of 100,000 endpoints is hundreds of megabytes of messages.
//
// It calls each for the endpoints in their order, as long as there is no
// problem, with where in encoded they are. The message is valid during the call, its
// strings as long as nobody changes encoded.
// What Scan returns as the table has every field but the endpoints. Ties are
// left to a caller that knows which endpoints share a place, see CheckTies.
//
// The error is about bytes that are no route table, or holds problems as that of
// Validate does; after very many the rest of the table is not looked at.
func Scan(encoded []byte, each func(e *routetablev1.Endpoint, start, end int)) (rest *routetablev1.RouteTable, version string, err error) {
	rest, err = withoutEndpoints(encoded)
	if err != nil {
		return nil, "", fmt.Errorf("decode the route table: %w", err)
	}
	var v validation
	v.before(rest)
	d := newDigest(rest)
	var decoder decoder
	before, i := "", 0
	for start, end := range Endpoints(encoded) {
		e, err := decoder.decode(encoded[start:end])
		if err != nil {
			return nil, "", fmt.Errorf("decode the route table: endpoints[%d]: %w", i, err)
		}
		v.endpoint(i, e)
		if i > 0 {
			v.order(i, before, e.GetName())
		}
		if len(v.problems) > maxScanProblems {
			v.report("", nil, "there may be more problems; the check has ended at endpoints[%d]", i)
			return nil, "", errors.Join(v.problems...)
		}
		if len(v.problems) == 0 {
			d.endpoint(e)
			each(e, start, end)
		}
		before = e.GetName()
		i++
	}
	v.after(rest)
	if len(v.problems) > 0 {
		return nil, "", errors.Join(v.problems...)
	}
	return rest, d.sum(rest), nil
}

// CheckTies reports ties, as Validate does, among some endpoints of a table,
// whose places in it are numbers, ascending.
func CheckTies(endpoints []*routetablev1.Endpoint, numbers []int) error {
	var v validation
	v.ties(endpoints, numbers)
	return errors.Join(v.problems...)
}

// endpointsField is the number of RouteTable.endpoints.
const endpointsField = 3

// Endpoints yields where the encoded endpoints are in a marshalled route table,
// up to the first byte that is not well-formed.
func Endpoints(encoded []byte) iter.Seq2[int, int] {
	return func(yield func(start, end int) bool) {
		_ = Walk(encoded, func(f Field) bool { return !f.isEndpoint() || yield(f.Value, f.End) })
	}
}

// withoutEndpoints decodes all fields of a marshalled route table but the
// endpoints.
func withoutEndpoints(encoded []byte) (*routetablev1.RouteTable, error) {
	var others []byte
	err := Walk(encoded, func(f Field) bool {
		if !f.isEndpoint() {
			others = append(others, encoded[f.Start:f.End]...)
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	t := new(routetablev1.RouteTable)
	return t, proto.Unmarshal(others, t)
}

// Field is where a field lies in an encoded message.
type Field struct {
	Number protowire.Number
	Kind   protowire.Type
	Start  int // of the tag
	Value  int // of the value; of a string or message, behind its length
	End    int
}

func (f *Field) isEndpoint() bool {
	return f.Number == endpointsField && f.Kind == protowire.BytesType
}

// Walk calls visit for each field of an encoded message, in the order of the
// bytes, until it returns false. The error is about bytes that are no message.
func Walk(message []byte, visit func(Field) bool) error {
	for at := 0; at < len(message); {
		f := Field{Start: at}
		var n int
		if f.Number, f.Kind, n = protowire.ConsumeTag(message[at:]); n < 0 {
			return protowire.ParseError(n)
		}
		at += n
		f.Value = at
		if n = protowire.ConsumeFieldValue(f.Number, f.Kind, message[at:]); n < 0 {
			return protowire.ParseError(n)
		}
		at += n
		f.End = at
		if f.Kind == protowire.BytesType {
			_, n = protowire.ConsumeVarint(message[f.Value:])
			f.Value += n
		}
		if !visit(f) {
			return nil
		}
	}
	return nil
}
