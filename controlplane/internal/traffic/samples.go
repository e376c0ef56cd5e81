package traffic

import (
	"cmp"
	"container/heap"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

const (
	// sampleAge is how old a sample becomes.
	sampleAge = 5 * time.Minute
	// spanTime is the time of which samples are chosen together, spanSamples how many.
	spanTime    = 10 * time.Second
	spanSamples = 300
	spans       = int(sampleAge/spanTime) + 1

	maxMethod = 64
	maxWeight = 1e12
)

// Sample is one request that stands for Weight of them.
type Sample struct {
	Method, Host, Path string
	// Endpoint took it; empty: none.
	Endpoint string
	Weight   float64
	At       time.Time
}

// Samples are requests of the last five minutes, chosen so that the weights of any
// kind of them add up, on average, to how many of that kind there were.
type Samples struct {
	// List, the newest first.
	List []Sample
	// DataPlanes have told about their requests; WithoutSamples of them have had
	// requests and gave no samples.
	DataPlanes, WithoutSamples int
	// Over is the age of the oldest one.
	Over time.Duration
}

// samples is a bounded choice of all that the data planes give.
type samples struct {
	mu   sync.Mutex
	ring [spans]span // by time
}

// span is a choice among the samples of some seconds, by priority sampling (Duffield,
// Lund, Thorup): each has its weight divided by a random number as its priority, and
// those with the highest are kept, and one more, the bar. A sample that is kept stands
// for its weight, or for the bar's priority if that is more: so sums are right on
// average whatever the weights are.
type span struct {
	number int64 // of spanTime since the epoch
	kept   choice
}

// chosen is a sample with its priority.
type chosen struct {
	Sample
	priority float64
}

// choice is a heap with the lowest priority at the top; at most spanSamples+1.
type choice []chosen

func (c choice) Len() int           { return len(c) }
func (c choice) Less(i, j int) bool { return c[i].priority < c[j].priority }
func (c choice) Swap(i, j int)      { c[i], c[j] = c[j], c[i] }

// Push implements heap.Interface.
func (c *choice) Push(x any) { *c = append(*c, x.(chosen)) }

// Pop implements heap.Interface.
func (c *choice) Pop() any {
	last := len(*c) - 1
	x := (*c)[last]
	*c = (*c)[:last]
	return x
}

// add takes the samples of a heartbeat that came at a time.
func (s *samples) add(list []*routetablev1.Sample, at time.Time) {
	if len(list) == 0 {
		return
	}
	fresh := make([]chosen, 0, len(list))
	for _, m := range list {
		if properSample(m) {
			fresh = append(fresh, chosen{
				Sample: Sample{
					Method: m.GetMethod(), Host: m.GetHost(), Path: m.GetPath(), Endpoint: m.GetEndpoint(), Weight: m.GetWeight(), At: at,
				},
				priority: m.GetWeight() / (1 - rand.Float64()),
			})
		}
	}
	number := at.UnixNano() / int64(spanTime)
	s.mu.Lock()
	defer s.mu.Unlock()
	of := &s.ring[uint64(number)%uint64(spans)]
	if of.number != number {
		if of.number > number {
			return // of a heartbeat that waited for so long
		}
		clear(of.kept)
		of.number, of.kept = number, of.kept[:0]
	}
	for _, c := range fresh {
		switch {
		case len(of.kept) <= spanSamples:
			heap.Push(&of.kept, c)
		case c.priority > of.kept[0].priority:
			of.kept[0] = c
			heap.Fix(&of.kept, 0)
		}
	}
}

// properSample reports whether a sample may be kept.
func properSample(m *routetablev1.Sample) bool {
	w := m.GetWeight()
	return w > 0 && w <= maxWeight &&
		m.GetMethod() != "" && proper(m.GetMethod(), maxMethod) &&
		proper(m.GetHost(), routetable.MaxHostBytes) &&
		len(m.GetPath()) <= routetable.MaxSamplePath && routetable.IsNormalPath(m.GetPath()) &&
		proper(m.GetEndpoint(), routetable.MaxNameBytes)
}

// all returns what is not too old, the newest first.
func (s *samples) all(now time.Time) (list []Sample) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.ring {
		kept := s.ring[i].kept
		bar := 0.0
		if len(kept) > spanSamples {
			bar, kept = kept[0].priority, kept[1:]
		}
		for _, c := range kept {
			if age := now.Sub(c.At); age > sampleAge {
				continue
			}
			c.Weight = max(c.Weight, bar)
			list = append(list, c.Sample)
		}
	}
	slices.SortFunc(list, func(a, b Sample) int {
		return cmp.Or(b.At.Compare(a.At), strings.Compare(a.Path, b.Path))
	})
	return list
}

// Samples returns what is known of the requests of the last five minutes.
func (s *Store) Samples() Samples {
	now := s.now()
	all := Samples{List: s.samples.all(now)}
	if n := len(all.List); n > 0 {
		all.Over = max(0, now.Sub(all.List[n-1].At))
	}
	s.each(func(_ string, p *plane) {
		if p.counters.Process == 0 || now.Sub(p.counters.At) > sampleAge {
			return
		}
		all.DataPlanes++
		// A request that was answered may have been sampled a heartbeat before.
		if !p.moved.IsZero() && p.sampled.IsZero() {
			all.WithoutSamples++
		}
	})
	return all
}
