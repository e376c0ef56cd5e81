package routetable_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// The versions below are kept by control planes and data planes of other
// releases. A change here splits every fleet that is being upgraded: the
// canonical form may be extended, never changed.
func TestVersionIsFixed(t *testing.T) {
	tests := []struct {
		name  string
		table *routetablev1.RouteTable
		want  string
	}{
		{"no table", nil, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
		{"empty", &routetablev1.RouteTable{}, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
		{"every field of the first release", first(), "c836ce36ff076e577d468f9c3a1cbcd9e026c33a6c58f910a1563e9a298529d1"},
		{"every field", small(), "d66a2bb1d094d57b42e169d00b0d2c828474d884a5f7429ef394d757c78e9a87"},
		{"1000 endpoints", large(1000), "13f42a16340a8e49448a57d0f7e5e6f7c148f7c483e893ea6159b98eb6478490"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := routetable.Version(test.table); got != test.want {
				t.Errorf("version is %s, want %s", got, test.want)
			}
		})
	}
}

// first is small without what was added after the first release.
func first() *routetablev1.RouteTable {
	t := small()
	t.AccessLog, t.RequestId = nil, false
	return t
}

// The form written out by hand, from its description only.
func TestVersionOfKnownBytes(t *testing.T) {
	field := func(number byte, value string) string {
		return string([]byte{number, byte(len(value))}) + value
	}
	form := field(1, "\xc0\x3e") + // port 8000
		field(3, field(1, "a")+ // endpoints: name
			field(3, "")+ // prefix
			field(7, field(1, "http://ab")+field(2, "\x01"))+ // pool
			field(8, "")) + // timeouts, set and empty
		field(4, field(4, field(1, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))) // limits: header_timeout: -1
	table := &routetablev1.RouteTable{
		Port: 8000,
		Endpoints: []*routetablev1.Endpoint{{
			Name:     "a",
			Path:     &routetablev1.Endpoint_Prefix{},
			Pool:     []*routetablev1.Backend{{Url: "http://ab", Weight: 1}},
			Timeouts: &routetablev1.Timeouts{},
		}},
		Limits: &routetablev1.Limits{HeaderTimeout: &durationpb.Duration{Seconds: -1}},
	}
	sum := sha256.Sum256([]byte(form))
	if got, want := routetable.Version(table), hex.EncodeToString(sum[:]); got != want {
		t.Errorf("version is %s, want %s", got, want)
	}
}

// Every field that can be reached takes part: found by reflection, so that a
// field added to the wire contract cannot be forgotten.
func TestVersionChangesWithEveryField(t *testing.T) {
	for _, start := range []*routetablev1.RouteTable{small(), {}, {
		Limits: &routetablev1.Limits{}, AccessLog: &routetablev1.AccessLog{},
		Endpoints: []*routetablev1.Endpoint{{Timeouts: &routetablev1.Timeouts{}, Pool: []*routetablev1.Backend{{}}, Headers: []*routetablev1.HeaderMatch{{}}}},
	}} {
		versions := map[string]string{routetable.Version(start): "unchanged"}
		count := 0
		eachChange(start, func(what string) {
			count++
			v := routetable.Version(start)
			if other, ok := versions[v]; ok {
				t.Errorf("version is the same for %q and %q", what, other)
			}
			versions[v] = what
		})
		if got := routetable.Version(start); versions[got] != "unchanged" {
			t.Fatalf("a change was not undone")
		}
		t.Logf("%d changes", count)
	}
}

// eachChange makes every single change to a message, calls f and undoes it.
func eachChange(m proto.Message, f func(what string)) {
	changeMessage(m.ProtoReflect(), "", f)
}

func changeMessage(m protoreflect.Message, path string, f func(string)) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		name := path + "." + string(field.Name())
		// restore puts back what was set, also another member of a oneof.
		restore := func() {}
		if oneof := field.ContainingOneof(); oneof != nil {
			if set := m.WhichOneof(oneof); set != nil {
				value := m.Get(set)
				restore = func() { m.Set(set, value) }
			}
		} else if m.Has(field) && !field.IsList() {
			value := m.Get(field)
			restore = func() { m.Set(field, value) }
		}
		switch {
		case field.IsList():
			list := m.Mutable(field).List()
			for j := range list.Len() {
				element := fmt.Sprintf("%s[%d]", name, j)
				old := list.Get(j)
				if field.Message() != nil {
					changeMessage(old.Message(), element, f)
				} else {
					list.Set(j, other(field, old))
					f(element)
					list.Set(j, old)
				}
			}
			list.Append(list.NewElement())
			f(name + ": an empty element more")
			list.Truncate(list.Len() - 1)
			if n := list.Len(); n > 1 {
				a, b := list.Get(0), list.Get(1)
				list.Set(0, b)
				list.Set(1, a)
				f(name + ": swapped")
				list.Set(0, a)
				list.Set(1, b)
			}
			if n := list.Len(); n > 0 {
				last := list.Get(n - 1)
				list.Truncate(n - 1)
				f(name + ": without the last")
				list.Append(last)
			}
		case m.Has(field):
			value := m.Get(field)
			m.Clear(field)
			f(name + ": cleared")
			m.Set(field, value)
			if field.Message() != nil {
				changeMessage(m.Mutable(field).Message(), name, f)
			} else {
				if field.Kind() != protoreflect.BoolKind {
					m.Set(field, other(field, value))
					f(name)
				}
				restore()
			}
		case field.Message() != nil:
			m.Set(field, m.NewField(field))
			f(name + ": set, empty")
			m.Clear(field)
		default:
			m.Set(field, other(field, m.Get(field)))
			f(name)
			m.Clear(field)
			if field.ContainingOneof() != nil {
				m.Set(field, m.NewField(field))
				f(name + ": set, empty")
				m.Clear(field)
			}
			restore()
		}
	}
}

// other returns another value than v.
func other(field protoreflect.FieldDescriptor, v protoreflect.Value) protoreflect.Value {
	switch field.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(v.String() + "x")
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(!v.Bool())
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(v.Uint()) + 128)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(v.Int()) + 1)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(v.Int() + 1)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(v.Enum() + 1)
	}
	panic(fmt.Sprintf("the canonical form and this test know no fields of kind %s", field.Kind()))
}

func TestVersionIgnoresUnknownFields(t *testing.T) {
	want := routetable.Version(small())
	table := small()
	unknown := protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 1)
	table.ProtoReflect().SetUnknown(unknown)
	table.Endpoints[0].ProtoReflect().SetUnknown(unknown)
	if got := routetable.Version(table); got != want {
		t.Errorf("version is %s with unknown fields, %s without", got, want)
	}
}

func TestVersionSurvivesTheWire(t *testing.T) {
	table := small()
	data, err := proto.Marshal(table)
	if err != nil {
		t.Fatal(err)
	}
	var again routetablev1.RouteTable
	if err := proto.Unmarshal(data, &again); err != nil {
		t.Fatal(err)
	}
	if got, want := routetable.Version(&again), routetable.Version(table); got != want {
		t.Errorf("version is %s after the wire, %s before", got, want)
	}
}

func BenchmarkVersion(b *testing.B) {
	table := large(100_000)
	b.ReportAllocs()
	for b.Loop() {
		routetable.Version(table)
	}
}
