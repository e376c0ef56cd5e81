package subscribe

import (
	"bytes"
	"fmt"
	"log/slog"
	"testing"

	"google.golang.org/protobuf/proto"

	"reverseproxy/dataplane/internal/activate"
	"reverseproxy/dataplane/internal/activate/activatetest"
)

// twoTables returns two tables of 100,000 endpoints that differ in one of them, and the
// deltas to each of them from the other one.
func twoTables(b *testing.B) (whole, deltas [2]*offer) {
	b.Helper()
	const size = 100_000
	rt := manyEndpoints(activatetest.Port(b), size)
	for i := range whole {
		d, version := change(rt, size/2, i)
		wire, err := proto.Marshal(d)
		if err != nil {
			b.Fatal(err)
		}
		whole[i], deltas[i] = pack(activatetest.Encode(b, rt), version, 1), pack(wire, version, 1)
	}
	deltas[0].base, deltas[1].base = whole[1].version, whole[0].version
	return whole, deltas
}

// BenchmarkApply puts the two tables in force in turn and stores them: as a whole and as
// a delta, from when the bytes have come.
func BenchmarkApply(b *testing.B) {
	whole, deltas := twoTables(b)
	for name, offers := range map[string][2]*offer{"whole": whole, "delta": deltas} {
		b.Run(name, func(b *testing.B) {
			o := activatetest.Options(b)
			o.Log = slog.New(slog.DiscardHandler)
			s := New(Options{Activator: activate.New(o), Store: NewStore(b.TempDir()), Log: o.Log})
			apply := func(o *offer) {
				again := *o
				again.data = bytes.Clone(o.data)
				s.apply(task{version: o.version, revision: 1, offer: &again, source: activate.Stream})
				if f := s.o.Activator.InForce(); f == nil || f.Table.Version != o.version || s.unsaved != nil {
					b.Fatal("the table is not in force, or not stored")
				}
			}
			apply(whole[0])
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				n++
				apply(offers[n%2])
			}
		})
	}
}

// BenchmarkRestore starts with a stored table, and with as many changes behind it as
// there may be.
func BenchmarkRestore(b *testing.B) {
	whole, deltas := twoTables(b)
	store := NewStore(b.TempDir())
	if err := store.save(whole[0]); err != nil {
		b.Fatal(err)
	}
	for _, changes := range []int{0, maxChanges} {
		for n := range changes {
			if err := store.change(deltas[(n+1)%2]); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(fmt.Sprintf("changes=%d", changes), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				o := activatetest.Options(b)
				o.Log = slog.New(slog.DiscardHandler)
				s := New(Options{Activator: activate.New(o), Store: NewStore(store.dir), Log: o.Log})
				s.Restore()
				if s.o.Activator.InForce() == nil {
					b.Fatal("the table is not in force")
				}
			}
		})
	}
}
