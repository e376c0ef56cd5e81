package subscribe

import (
	"math/rand/v2"
	"slices"
	"time"
)

// steady is how long a stream has to have lasted for its control plane to count as one
// that works. It bounds how often control planes that come and go are connected to:
// each of them once in this time.
const steady = time.Second

// rota is the order in which control planes are tried: a random one, so that the data
// planes of one that is lost spread over the others.
type rota struct {
	addresses []string
	at        int
	// unpaused is how many of the next ones are tried without a pause: each, once
	// after one has worked.
	unpaused int
}

func newRota(addresses []string) *rota {
	r := &rota{addresses: slices.Clone(addresses), unpaused: len(addresses) - 1}
	rand.Shuffle(len(addresses), func(i, j int) { r.addresses[i], r.addresses[j] = r.addresses[j], r.addresses[i] })
	return r
}

func (r *rota) address() string { return r.addresses[r.at] }

// next goes on to the next address, and reports whether it is to be tried at once.
// worked: the one before has been of use.
func (r *rota) next(worked bool) (atOnce bool) {
	r.at = (r.at + 1) % len(r.addresses)
	if worked {
		r.unpaused = len(r.addresses) - 1
	}
	if r.unpaused == 0 {
		return false
	}
	r.unpaused--
	return true
}

// anew goes on to any address, perhaps the same one.
func (r *rota) anew() {
	r.at = rand.IntN(len(r.addresses))
	r.unpaused = len(r.addresses) - 1
}
