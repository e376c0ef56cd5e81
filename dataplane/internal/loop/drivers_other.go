//go:build !linux

package loop

import "reverseproxy/dataplane/internal/loop/portable"

var drivers = []choice{{"portable", portable.New, 0}}
