package traffic

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

const (
	// minutes is how many are kept of each endpoint: five, and the one that is not over.
	minutes = 6
	// maxNames is of how many endpoints.
	maxNames = 200_000
	// pointTime is the time between two points of a series, points how many are kept.
	pointTime = 5 * time.Second
	points    = int(10 * time.Minute / pointTime)
	// busiest is how many endpoints a point has; series that Series returns.
	busiest, series = 300, 100
)

// past is what has happened in the last minutes.
type past struct {
	mu     sync.Mutex
	minute int64 // the one that is not over, since the epoch
	recent map[name]*[minutes]float32
	points []point // the oldest first
}

// point is the rates at one moment.
type point struct {
	at   time.Time
	all  Rate
	each map[name]Rate // the busiest
}

// Rate is how many requests there are in a second, and how many of them fail.
type Rate struct{ Requests, Failures float64 }

// add takes what there was since the sweep before.
func (p *past) add(sums map[name]*sum, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.turn(now)
	for n, t := range sums {
		if t.counted == 0 {
			continue
		}
		counts := p.recent[n]
		if counts == nil {
			if len(p.recent) >= maxNames {
				continue
			}
			counts = new([minutes]float32)
			p.recent[n] = counts
		}
		counts[p.minute%minutes] += float32(t.counted)
	}
	if last := len(p.points) - 1; last >= 0 && now.Sub(p.points[last].at) < pointTime*9/10 {
		return
	}
	if len(p.points) == points {
		p.points = slices.Delete(p.points, 0, 1)
	}
	p.points = append(p.points, newPoint(sums, now))
}

// turn makes room for the current minute. The caller holds mu.
func (p *past) turn(now time.Time) {
	minute := now.Unix() / 60
	if p.recent == nil {
		p.minute, p.recent = minute, map[name]*[minutes]float32{}
	}
	if minute <= p.minute {
		return
	}
	for n, counts := range p.recent {
		for m := max(p.minute+1, minute-minutes+1); m <= minute; m++ {
			counts[m%minutes] = 0
		}
		if *counts == [minutes]float32{} {
			delete(p.recent, n)
		}
	}
	p.minute = minute
}

// addTo adds the requests of the last minutes to what is counted in sums.
func (p *past) addTo(sums map[name]*sum, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.turn(now)
	for n, counts := range p.recent {
		t := sums[n]
		if t == nil {
			t = &sum{}
			sums[n] = t
		}
		for _, c := range counts {
			t.counted += float64(c)
		}
	}
}

// newPoint returns the rates in sums.
func newPoint(sums map[name]*sum, now time.Time) point {
	p := point{at: now, each: map[name]Rate{}}
	type entry struct {
		name
		Rate
	}
	var list []entry
	for n, t := range sums {
		p.all.Requests += t.requests
		p.all.Failures += t.failures
		if t.planes > 0 {
			list = append(list, entry{n, Rate{t.requests, t.failures}})
		}
	}
	slices.SortFunc(list, func(a, b entry) int { return cmp.Compare(b.Requests, a.Requests) })
	for _, e := range list[:min(busiest, len(list))] {
		p.each[e.name] = e.Rate
	}
	return p
}

// Series is the rates of the last ten minutes.
type Series struct {
	// Times of the points, the oldest first, some five seconds apart.
	Times []time.Time
	// All is the whole fleet at these times.
	All []Rate
	// Endpoints are the busiest 100, the busiest first.
	Endpoints []EndpointSeries
}

// EndpointSeries is one endpoint. At a time when 300 others were busier its rate is 0.
type EndpointSeries struct {
	Endpoint string
	Rates    []Rate // one for each of Series.Times
}

// Series returns the rates of the last ten minutes.
func (s *Store) Series() Series {
	p := &s.past
	p.mu.Lock()
	defer p.mu.Unlock()
	var all Series
	totals := map[name]float64{}
	for i := range p.points {
		all.Times = append(all.Times, p.points[i].at)
		all.All = append(all.All, p.points[i].all)
		for n, r := range p.points[i].each {
			totals[n] += r.Requests
		}
	}
	names := make([]name, 0, len(totals))
	for n := range totals {
		names = append(names, n)
	}
	slices.SortFunc(names, func(a, b name) int {
		return cmp.Or(cmp.Compare(totals[b], totals[a]), cmp.Compare(a.Value(), b.Value()))
	})
	for _, n := range names[:min(series, len(names))] {
		e := EndpointSeries{Endpoint: n.Value(), Rates: make([]Rate, len(p.points))}
		for i := range p.points {
			e.Rates[i] = p.points[i].each[n]
		}
		all.Endpoints = append(all.Endpoints, e)
	}
	return all
}
