package serve

import "testing"

func TestGarbagePercent(t *testing.T) {
	for _, tt := range []struct {
		name         string
		heap, stacks uint64
		want         int
	}{
		{"nothing is known yet", 0, 0, 20},
		{"a small fleet", 6 << 20, 1 << 19, 80},
		{"a large table", 170 << 20, 19 << 20, 74},
		{"10,000 data planes", 130 << 20, 190 << 20, 20},
		{"10,000 data planes and a large table", 600 << 20, 190 << 20, 51},
	} {
		if got := garbagePercent(tt.heap, tt.stacks); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}
