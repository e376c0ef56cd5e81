package routetable

import (
	"bytes"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// Merge makes a marshalled route table from another one and a marshalled
// RouteTableDelta. It reads bytes and decodes nothing: what it returns has to pass Scan,
// and to have the version that is wanted, like a table that was sent as a whole.
//
// It returns an error for a delta that is malformed or does not fit the base, and never
// makes more than the bytes of both together. Neither is changed or referred to.
func Merge(base, delta []byte) ([]byte, error) {
	d, err := parseDelta(delta)
	if err != nil {
		return nil, fmt.Errorf("decode the delta: %w", err)
	}
	if d.size > uint64(len(base)+len(delta)) {
		return nil, fmt.Errorf("the delta makes %d bytes, of %d and %d", d.size, len(base), len(delta))
	}
	m := merger{delta: d, table: append(make([]byte, 0, d.size), d.rest...)}
	var before []byte
	first := true
	err = Walk(base, func(f Field) bool {
		if !f.isEndpoint() {
			return true
		}
		name := nameOf(base[f.Value:f.End])
		if !first && bytes.Compare(before, name) >= 0 {
			m.err = errors.New("the endpoints of the base are not sorted")
			return false
		}
		before, first = name, false
		return m.take(name, base[f.Start:f.End])
	})
	if err = errors.Join(err, m.err); err != nil {
		return nil, err
	}
	for _, e := range m.delta.changed {
		m.add(e)
	}
	switch {
	case len(m.delta.removed) > 0:
		return nil, fmt.Errorf("the delta removes %q, which the base does not have", m.delta.removed[0])
	case uint64(len(m.table)) != d.size:
		return nil, fmt.Errorf("the delta makes %d bytes, announced were %d", len(m.table), d.size)
	}
	return m.table, nil
}

// merger is one run of Merge. What has been taken of the delta is not in it any more.
type merger struct {
	delta delta
	table []byte
	err   error
}

// take takes the next endpoint of the base, a whole field. It returns false when the
// table becomes larger than was announced.
func (m *merger) take(name, field []byte) bool {
	d := &m.delta
	for len(d.changed) > 0 && bytes.Compare(d.changed[0].name, name) < 0 {
		m.add(d.changed[0])
		d.changed = d.changed[1:]
	}
	switch {
	case len(d.changed) > 0 && bytes.Equal(d.changed[0].name, name):
		m.add(d.changed[0])
		d.changed = d.changed[1:]
	case len(d.removed) > 0 && bytes.Equal(d.removed[0], name):
		d.removed = d.removed[1:]
	default:
		m.table = append(m.table, field...)
	}
	return uint64(len(m.table)) <= d.size
}

func (m *merger) add(e changedEndpoint) {
	m.table = protowire.AppendTag(m.table, endpointsField, protowire.BytesType)
	m.table = protowire.AppendBytes(m.table, e.wire)
}

// delta is a RouteTableDelta that is well-formed.
type delta struct {
	rest    []byte
	removed [][]byte
	changed []changedEndpoint
	size    uint64
}

type changedEndpoint struct{ name, wire []byte }

// The fields of RouteTableDelta.
const restField, removedField, changedField, sizeField = 1, 2, 3, 4

// parseDelta finds the parts of a delta. They refer to wire.
func parseDelta(wire []byte) (d delta, err error) {
	var odd error
	err = Walk(wire, func(f Field) bool {
		value := wire[f.Value:f.End]
		switch {
		case f.Number == sizeField && f.Kind == protowire.VarintType:
			d.size, _ = protowire.ConsumeVarint(value)
		case f.Kind != protowire.BytesType:
			odd = fmt.Errorf("field %d of type %d is not known", f.Number, f.Kind)
		case f.Number == restField:
			d.rest = append(d.rest, value...) // of several, all count
		case f.Number == removedField:
			if n := len(d.removed); n > 0 && bytes.Compare(d.removed[n-1], value) >= 0 {
				odd = errors.New("the removed endpoints are not sorted")
			}
			d.removed = append(d.removed, value)
		case f.Number == changedField:
			e := changedEndpoint{nameOf(value), value}
			if n := len(d.changed); n > 0 && bytes.Compare(d.changed[n-1].name, e.name) >= 0 {
				odd = errors.New("the changed endpoints are not sorted")
			}
			d.changed = append(d.changed, e)
		default:
			odd = fmt.Errorf("field %d of type %d is not known", f.Number, f.Kind)
		}
		return odd == nil
	})
	if err == nil && odd == nil {
		err = Walk(d.rest, func(f Field) bool {
			if f.isEndpoint() {
				odd = errors.New("the rest has endpoints")
			}
			return odd == nil
		})
	}
	return d, errors.Join(err, odd)
}

// nameField is the number of Endpoint.name.
const nameField = 1

// nameOf returns the name of a marshalled endpoint, empty when it has none.
func nameOf(endpoint []byte) (name []byte) {
	_ = Walk(endpoint, func(f Field) bool {
		if f.Number != nameField || f.Kind != protowire.BytesType {
			return true
		}
		name = endpoint[f.Value:f.End]
		return false
	})
	return name
}
