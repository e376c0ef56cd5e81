package table_test

import (
	"fmt"
	"testing"
)

func TestACycleBeginsAtThePlace(t *testing.T) {
	three := []string{"http://a", "http://b", "http://c"}
	for _, test := range []struct {
		name  string
		pool  []string
		place uint32
		want  string
	}{
		{"the first", three, 0, "abca"},
		{"the second", three, 1, "bcab"},
		{"the last", three, 2, "cabc"},
		{"more than backends", three, 7, "bcab"},
		{"weights", []string{"http://a 2", "http://b"}, 1, "baab"},
		{"one", []string{"http://a"}, 5, "aa"},
		{"drained", []string{"http://a 0", "http://b", "http://c"}, 1, "cbcb"},
		{"all drained", []string{"http://a 0"}, 3, "-"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newState()
			s.Place.Store(test.place)
			if got := take(compile(t, wireTable(withPool(endpoint("e", "/"), test.pool...)), s).Endpoint("e").Pool, len(test.want)); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

// A pool that a table leaves as it is goes on where it is, a changed one begins at the
// place.
func TestAPlaceIsForNewPoolsOnly(t *testing.T) {
	s := newState()
	first := compile(t, wireTable(withPool(endpoint("e", "/"), "http://a", "http://b", "http://c")), s)
	if got := take(first.Endpoint("e").Pool, 1); got != "a" {
		t.Fatalf("first is %s", got)
	}
	s.Place.Store(2)
	second := compile(t, wireTable(withPool(endpoint("e", "/"), "http://a", "http://b", "http://c"),
		withPool(endpoint("f", "/f"), "http://a", "http://b", "http://c")), s)
	if got := take(second.Endpoint("e").Pool, 2); got != "bc" {
		t.Errorf("the unchanged pool: %s, want bc", got)
	}
	if got := take(second.Endpoint("f").Pool, 2); got != "ca" {
		t.Errorf("the new pool: %s, want ca", got)
	}
	third := compile(t, wireTable(withPool(endpoint("e", "/"), "http://a", "http://b", "http://d")), s)
	if got := take(third.Endpoint("e").Pool, 2); got != "da" {
		t.Errorf("the changed pool: %s, want da", got)
	}
}

// The documented bound: when each of n data planes has taken k requests, two of m
// backends differ by at most the smallest of n, k and what is left of them to the next
// multiple of m, all modulo m.
func TestHowEvenlyAFleetBegins(t *testing.T) {
	for m := 1; m <= 6; m++ {
		var urls []string
		for i := range m {
			urls = append(urls, "http://"+string(rune('a'+i)))
		}
		for n := 1; n <= 13; n++ {
			var counts [6]int
			tables := make([]func() string, n)
			for place := range tables {
				s := newState()
				s.Place.Store(uint32(place))
				pool := compile(t, wireTable(withPool(endpoint("e", "/"), urls...)), s).Endpoint("e").Pool
				tables[place] = func() string { return take(pool, 1) }
			}
			for k := 1; k <= 2*m; k++ {
				for _, next := range tables {
					counts[next()[0]-'a']++
				}
				least, most := counts[0], counts[0]
				for _, c := range counts[:m] {
					least, most = min(least, c), max(most, c)
				}
				if bound := min(n%m, m-n%m, k%m, m-k%m); most-least > bound {
					t.Errorf("%d data planes, %d backends, %d requests each: %v, differ by more than %d", n, m, k, fmt.Sprint(counts[:m]), bound)
				}
			}
		}
	}
}
