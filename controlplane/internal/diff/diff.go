// Package diff says what differs between two route tables, in the words of the
// configuration file. It is pure. What it does not know by name, such as a field that
// is new in the contract, it calls by the field's name, so that nothing is left out.
package diff

import (
	"bytes"
	"cmp"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	fleetv1 "reverseproxy/proto/fleet/v1"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

const (
	added   = fleetv1.ChangeKind_CHANGE_KIND_ADDED
	removed = fleetv1.ChangeKind_CHANGE_KIND_REMOVED
	changed = fleetv1.ChangeKind_CHANGE_KIND_CHANGED
)

// Tables returns what has to be done to the one table to make it the other: first what
// concerns all endpoints, then the endpoints by name. Endpoints are the same when they
// have the same name, and backends when they have the same URL. Both tables have their
// endpoints sorted by name, as those that compile makes.
func Tables(before, after *routetablev1.RouteTable) []*fleetv1.Change {
	d := &differ{}
	compare("", before.ProtoReflect(), after.ProtoReflect(), func(key, detail string) {
		d.add(changed, key, detail, "")
	})
	a, b := before.GetEndpoints(), after.GetEndpoints()
	for len(a) > 0 || len(b) > 0 {
		switch order(a, b) {
		case -1:
			d.add(removed, subject(a[0]), "", a[0].GetName())
			a = a[1:]
		case 1:
			d.add(added, subject(b[0]), "", b[0].GetName())
			b = b[1:]
		default:
			if !d.equal(a[0], b[0]) {
				d.endpoint(a[0], b[0])
			}
			a, b = a[1:], b[1:]
		}
	}
	return d.changes
}

// order says which of two lists has the next endpoint; both are not empty at once.
func order(a, b []*routetablev1.Endpoint) int {
	switch {
	case len(a) == 0:
		return 1
	case len(b) == 0:
		return -1
	}
	return cmp.Compare(a[0].GetName(), b[0].GetName())
}

func subject(e *routetablev1.Endpoint) string { return "endpoint " + e.GetName() }

// differ gathers the changes.
type differ struct {
	changes []*fleetv1.Change
	a, b    []byte // for equal
}

func (d *differ) add(kind fleetv1.ChangeKind, subject, detail, endpoint string) {
	d.changes = append(d.changes, &fleetv1.Change{Kind: kind, Subject: subject, Detail: detail, Endpoint: endpoint})
}

// equal tells most endpoints apart from the few that have changed: marshalling takes
// a tenth of the time of proto.Equal.
func (d *differ) equal(a, b *routetablev1.Endpoint) bool {
	if a == b {
		return true
	}
	var errA, errB error
	o := proto.MarshalOptions{Deterministic: true}
	d.a, errA = o.MarshalAppend(d.a[:0], a)
	d.b, errB = o.MarshalAppend(d.b[:0], b)
	return errA == nil && errB == nil && bytes.Equal(d.a, d.b)
}

// endpoint compares two endpoints of one name.
func (d *differ) endpoint(a, b *routetablev1.Endpoint) {
	name := b.GetName()
	change := func(key, detail string) { d.add(changed, subject(b), key+" "+detail, name) }
	if from, to := from(a), from(b); from != to {
		change("from", arrow(from, to))
	}
	compare("", a.ProtoReflect(), b.ProtoReflect(), change)
	d.pool(name, a.GetPool(), b.GetPool())
}

// from is the path of an endpoint, as in the file.
func from(e *routetablev1.Endpoint) string {
	if _, prefix := e.GetPath().(*routetablev1.Endpoint_Prefix); prefix {
		return routetable.From(e.GetPrefix(), true)
	}
	return e.GetExact()
}

// member tells backends of a pool apart; a URL may be there more than once.
type member struct {
	url string
	nth int
}

// pool compares the backends of two endpoints of one name.
func (d *differ) pool(name string, a, b []*routetablev1.Backend) {
	before, after := members(a), members(b)
	called := func(m member) string { return "backend " + m.url + " of endpoint " + name }
	var stayed, stay []member
	old := make(map[member]*routetablev1.Backend, len(a))
	kept := make(map[member]bool, len(a))
	for i, m := range before {
		old[m] = a[i]
	}
	for i, m := range after {
		was, there := old[m]
		if !there {
			d.add(added, called(m), "", name)
			continue
		}
		kept[m] = true
		stay = append(stay, m)
		compare("", was.ProtoReflect(), b[i].ProtoReflect(), func(key, detail string) {
			d.add(changed, called(m), key+" "+detail, name)
		})
	}
	for _, m := range before {
		if kept[m] {
			stayed = append(stayed, m)
			continue
		}
		d.add(removed, called(m), "", name)
	}
	if !slices.Equal(stayed, stay) {
		d.add(changed, "endpoint "+name, "pool in another order", name)
	}
}

func members(pool []*routetablev1.Backend) []member {
	seen := make(map[string]int, len(pool))
	list := make([]member, len(pool))
	for i, b := range pool {
		list[i] = member{b.GetUrl(), seen[b.GetUrl()]}
		seen[b.GetUrl()]++
	}
	return list
}

// elsewhere are the fields that are not compared as what they are, but by endpoint,
// from or pool.
var elsewhere = map[protoreflect.FullName]bool{
	"routetable.v1.RouteTable.endpoints": true,
	"routetable.v1.Endpoint.name":        true,
	"routetable.v1.Endpoint.exact":       true,
	"routetable.v1.Endpoint.prefix":      true,
	"routetable.v1.Endpoint.pool":        true,
	"routetable.v1.Backend.url":          true,
}

// field is a field that is compared.
type field struct {
	it  protoreflect.FieldDescriptor
	key string
	// group: it is a mapping in the file, whose keys are compared one by one, also, with
	// implied, when it is not there.
	group, implied bool
}

// fields are those of every message of a table, by the name of the message: looking up
// what is to be done with each of them, each time, takes most of the time otherwise.
var fields = fieldsOf(map[protoreflect.FullName][]field{}, (&routetablev1.RouteTable{}).ProtoReflect().Descriptor())

func fieldsOf(known map[protoreflect.FullName][]field, m protoreflect.MessageDescriptor) map[protoreflect.FullName][]field {
	list := make([]field, 0, m.Fields().Len())
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		if !elsewhere[f.FullName()] {
			list = append(list, field{f, keyOf(f), group(f), implied[f.FullName()]})
		}
		if f.Message() != nil && known[f.Message().FullName()] == nil {
			fieldsOf(known, f.Message())
		}
	}
	known[m.FullName()] = list
	return known
}

// compare tells of every field that differs between two messages of one type, by its
// key in the file below a path.
func compare(path string, a, b protoreflect.Message, tell func(key, detail string)) {
	for _, f := range fields[a.Descriptor().FullName()] {
		hasA, hasB := a.Has(f.it), b.Has(f.it)
		switch {
		case !hasA && !hasB:
		case f.group && (f.implied || hasA && hasB):
			compare(path+f.key+".", a.Get(f.it).Message(), b.Get(f.it).Message(), tell)
		case hasA == hasB && a.Get(f.it).Equal(b.Get(f.it)):
		case f.it.IsList():
			tell(path+f.key, lists(elements(f.it, a), elements(f.it, b), unset(f.it)))
		default:
			tell(path+f.key, arrow(text(f.it, a), text(f.it, b)))
		}
	}
}

func arrow(before, after string) string { return before + " → " + after }

// lists says how two lists differ: both of them, or what is new and gone where they are
// long.
func lists(a, b []string, none string) string {
	before, after := cmp.Or(strings.Join(a, ", "), none), cmp.Or(strings.Join(b, ", "), none)
	if len(before)+len(after) <= longText || len(a) == 0 && len(b) == 1 || len(b) == 0 && len(a) == 1 {
		return arrow(before, after)
	}
	var parts []string
	if more := without(b, a); len(more) > 0 {
		parts = append(parts, "adds "+some(more))
	}
	if fewer := without(a, b); len(fewer) > 0 {
		parts = append(parts, "removes "+some(fewer))
	}
	if len(parts) == 0 {
		return "in another order"
	}
	return strings.Join(parts, ", ")
}

// without returns the elements of a list that another one does not have.
func without(list, other []string) []string {
	n := map[string]int{}
	for _, s := range other {
		n[s]++
	}
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool {
		n[s]--
		return n[s] >= 0
	})
}
