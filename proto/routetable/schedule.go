package routetable

import "fmt"

// Slots returns the length of the schedule that Schedule makes of the weights:
// their sum divided by their greatest common divisor. It is 0 when every weight
// is.
func Slots(weights []uint32) int {
	var sum, divisor uint64
	for _, w := range weights {
		sum += uint64(w)
		divisor = gcd(divisor, uint64(w))
	}
	if divisor == 0 {
		return 0
	}
	return int(sum / divisor)
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// CheckWeights says what is wrong with the weights of a pool as a whole.
func CheckWeights(weights []uint32) error {
	if n := Slots(weights); n > MaxSlots {
		return fmt.Errorf("the weights make a cycle of %d requests; at most %d are allowed: use weights with a larger common divisor", n, MaxSlots)
	}
	return nil
}

// Schedule returns the cycle in which the backends of a pool take requests, as
// indices of weights: the smooth weighted round robin, in which a:3 b:1 is a a b
// a. In each step every backend gains its weight, the richest one (the first
// among equals) takes the request and pays the sum of all weights.
//
// Equal weights make a schedule of one round; a weight of 0 takes no part.
func Schedule(weights []uint32) []uint32 {
	slots := Slots(weights)
	if slots == 0 {
		return nil
	}
	// Backends of one weight take turns among themselves, in the order of the
	// pool, so only the one of each weight that is next is compared. The sum of n
	// different weights grows with the square of n: there are few of them.
	type turns struct {
		weight   int64
		backends []uint32
		next     int   // of backends
		credit   int64 // of the next one, and of those after it in this round
		spent    int64 // of those before it
	}
	var groups []*turns
	byWeight := map[uint32]*turns{}
	var total int64
	for i, w := range weights {
		if w == 0 {
			continue
		}
		total += int64(w)
		g := byWeight[w]
		if g == nil {
			g = &turns{weight: int64(w)}
			byWeight[w] = g
			groups = append(groups, g)
		}
		g.backends = append(g.backends, uint32(i))
	}
	schedule := make([]uint32, slots)
	for slot := range schedule {
		var best *turns
		for _, g := range groups {
			g.credit += g.weight
			g.spent += g.weight
			if best == nil || g.credit > best.credit ||
				g.credit == best.credit && g.backends[g.next] < best.backends[best.next] {
				best = g
			}
		}
		schedule[slot] = best.backends[best.next]
		if best.next == 0 {
			best.spent = best.credit - total
		}
		if best.next++; best.next == len(best.backends) {
			best.next, best.credit = 0, best.spent
		}
	}
	return schedule
}
