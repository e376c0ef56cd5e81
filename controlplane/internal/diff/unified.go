package diff

import (
	"fmt"

	"github.com/aymanbagabas/go-udiff"
)

// Unified returns the differences of two texts in the unified format, with the names
// given; empty when they are equal.
func Unified(before, after string, a, b []byte) (string, error) {
	text, err := udiff.ToUnified(before, after, string(a), udiff.Lines(string(a), string(b)), udiff.DefaultContextLines)
	if err != nil {
		return "", fmt.Errorf("compare texts: %w", err)
	}
	return text, nil
}
