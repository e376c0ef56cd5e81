package routetable_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"reverseproxy/proto/routetable"
)

func TestSchedule(t *testing.T) {
	tests := []struct {
		name    string
		weights []uint32
		want    []uint32
	}{
		{"none", nil, nil},
		{"all drained", []uint32{0, 0}, nil},
		{"one", []uint32{7}, []uint32{0}},
		{"equal", []uint32{5, 5, 5}, []uint32{0, 1, 2}},
		{"a:3 b:1", []uint32{3, 1}, []uint32{0, 0, 1, 0}},
		{"a:5 b:1 c:1", []uint32{5, 1, 1}, []uint32{0, 0, 1, 0, 2, 0, 0}},
		{"reduced", []uint32{300, 100}, []uint32{0, 0, 1, 0}},
		{"drained first", []uint32{0, 2, 1}, []uint32{1, 2, 1}},
		{"drained between equals", []uint32{1, 0, 1}, []uint32{0, 2}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := routetable.Schedule(test.weights)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("schedule (-want +got):\n%s", diff)
			}
			if n := routetable.Slots(test.weights); n != len(got) {
				t.Errorf("%d slots, want %d", n, len(got))
			}
		})
	}
}

// In a cycle every backend has exactly its share, and it is never far from it on
// the way.
func TestScheduleIsFairAndSmooth(t *testing.T) {
	for _, weights := range [][]uint32{{1000, 1}, {7, 5, 3, 2}, {1, 2, 3, 4, 5, 6}, {10, 10, 1}, {999, 1000, 998, 0, 1}} {
		schedule := routetable.Schedule(weights)
		var sum uint32
		for _, w := range weights {
			sum += w
		}
		given := make([]uint32, len(weights))
		for k, i := range schedule {
			given[i]++
			for j, w := range weights {
				due := float64(w) * float64(k+1) / float64(sum)
				if d := float64(given[j]) - due; d < -float64(len(weights)) || d > float64(len(weights)) {
					t.Fatalf("weights %v: backend %d has %d of %d requests, %.1f are due", weights, j, given[j], k+1, due)
				}
			}
		}
		if !slices.Equal(given, weights) {
			t.Errorf("weights %v: given %v", weights, given)
		}
	}
}

// plainSchedule is the definition: each step gives every backend its weight and
// takes the sum of all from the richest.
func plainSchedule(weights []uint32) (schedule []uint32) {
	var total int64
	for _, w := range weights {
		total += int64(w)
	}
	credit := make([]int64, len(weights))
	for range routetable.Slots(weights) {
		best := -1
		for i, w := range weights {
			credit[i] += int64(w)
			if w > 0 && (best < 0 || credit[i] > credit[best]) {
				best = i
			}
		}
		credit[best] -= total
		schedule = append(schedule, uint32(best))
	}
	return schedule
}

func TestScheduleIsTheDefinedOne(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		weights := make([]uint32, 1+rnd.IntN(12))
		most := 1 + rnd.IntN(8)
		for i := range weights {
			weights[i] = uint32(rnd.IntN(most + 1))
		}
		if diff := cmp.Diff(plainSchedule(weights), routetable.Schedule(weights)); diff != "" {
			t.Fatalf("weights %v: schedule (-want +got):\n%s", weights, diff)
		}
	}
}

func BenchmarkSchedule(b *testing.B) {
	// About the most that is allowed: 10,000 backends, 100,000 slots.
	weights := make([]uint32, 10_000)
	for i := range weights {
		weights[i] = uint32(1 + i%19)
	}
	if n := routetable.Slots(weights); n > routetable.MaxSlots {
		b.Fatalf("%d slots", n)
	}
	for b.Loop() {
		routetable.Schedule(weights)
	}
}
