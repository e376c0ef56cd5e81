package fleet

import "fmt"

// CheckPlaces compares the places with what they are to be.
func (f *Fleet) CheckPlaces() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, s := range f.places.holders {
		switch {
		case s.place != i:
			return fmt.Errorf("place %d is held by %s, which has place %d", i, s.id, s.place)
		case !s.connected && i < f.places.vacant:
			return fmt.Errorf("place %d is vacant, but would not be found: the search begins at %d", i, f.places.vacant)
		}
	}
	for id, sessions := range f.sessions {
		for _, s := range sessions {
			if s.connected && s.place == noPlace {
				return fmt.Errorf("%s is connected and has no place", id)
			}
			if s.place != noPlace && f.places.holders[s.place] != s {
				return fmt.Errorf("%s is not in place %d", id, s.place)
			}
		}
	}
	return nil
}
