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
	var total int64
	var taking []uint32
	for i, w := range weights {
		total += int64(w)
		if w > 0 {
			taking = append(taking, uint32(i))
		}
	}
	if slots == len(taking) {
		return taking
	}
	schedule := make([]uint32, slots)
	credit := make([]int64, len(taking))
	for slot := range schedule {
		best := 0
		for i, w := range taking {
			credit[i] += int64(weights[w])
			if credit[i] > credit[best] {
				best = i
			}
		}
		credit[best] -= total
		schedule[slot] = taking[best]
	}
	return schedule
}
