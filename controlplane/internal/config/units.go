package config

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"reverseproxy/proto/routetable"
)

var (
	sizeForm    = regexp.MustCompile(`^(0|[1-9][0-9]*)([KMG]i)?$`)
	sizeGuess   = regexp.MustCompile(`^([0-9]+) *([kKmMgG])(i?)[bB]?$`)
	percentForm = regexp.MustCompile(`^(0|[1-9][0-9]*)%$`)
	shareForm   = regexp.MustCompile(`^(0|[1-9][0-9]*)(\.[0-9]+)?$`)
	// A number, perhaps with a unit that Go does not know.
	durationGuess = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) *([a-zA-Z]*)$`)
)

var sizeUnits = map[string]uint64{"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}

var durationUnits = map[string]string{
	"": "s", "ms": "ms", "s": "s", "m": "m", "h": "h",
	"msec": "ms", "millis": "ms", "millisecond": "ms", "milliseconds": "ms",
	"sec": "s", "secs": "s", "second": "s", "seconds": "s",
	"min": "m", "mins": "m", "minute": "m", "minutes": "m", "hour": "h", "hours": "h", "hr": "h",
}

// duration reads a Go duration that is good as a timeout.
func (r *reader) duration(n node, at *path) (time.Duration, bool) {
	return r.checkedDuration(n, at, routetable.CheckTimeout)
}

// optionalDuration is duration, or 0s.
func (r *reader) optionalDuration(n node, at *path) (time.Duration, bool) {
	return r.checkedDuration(n, at, routetable.CheckOptionalTimeout)
}

func (r *reader) checkedDuration(n node, at *path, check func(time.Duration) error) (time.Duration, bool) {
	if r.tagged(n, at) {
		return 0, false
	}
	const expected = "a duration: numbers with units (ms, s, m, h), such as 250ms, 30s or 1m30s"
	if n.kind() != scalar || n.scalarType() == nullType {
		r.problem(n, at, "%s, expected %s", n.found(), expected)
		return 0, false
	}
	text := n.text()
	d, err := time.ParseDuration(text)
	if err != nil {
		hint := ""
		if m := durationGuess.FindStringSubmatch(text); m != nil {
			if unit := durationUnits[strings.ToLower(m[2])]; unit != "" {
				if m[2] == "" {
					r.problem(n, at, "%s has no unit; write %s%s or %sms", shorten(text), m[1], unit, m[1])
					return 0, false
				}
				if fixed := m[1] + unit; fixed != text {
					hint = fmt.Sprintf(" (did you mean %q?)", fixed)
				}
			} else if days, err := strconv.Atoi(m[1]); err == nil && strings.EqualFold(m[2], "d") {
				hint = fmt.Sprintf(" (did you mean \"%dh\"?)", 24*days)
			}
		}
		r.problem(n, at, "%s, expected %s%s", n.found(), expected, hint)
		return 0, false
	}
	if err := check(d); err != nil {
		r.problem(n, at, "%s", err)
		return 0, false
	}
	return d, true
}

// share reads a part of the whole, more than 0 and at most 1, in millionths: a
// decimal fraction has no one form in binary, and the route table needs one.
func (r *reader) share(n node, at *path) (uint32, bool) {
	if r.tagged(n, at) {
		return 0, false
	}
	const expected = "a number that is more than 0 and at most 1, such as 0.1 or 1"
	text := n.text()
	if n.kind() != scalar || n.quoted() || !shareForm.MatchString(text) {
		hint := ""
		if n.kind() == scalar {
			hint = shareHint(text)
		}
		r.problem(n, at, "%s, expected %s%s", n.found(), expected, hint)
		return 0, false
	}
	whole, fraction, _ := strings.Cut(text, ".")
	fraction = strings.TrimRight(fraction, "0")
	if len(fraction) > 6 {
		r.problem(n, at, "%s has more than 6 digits after the point; the least is 0.000001", shorten(text))
		return 0, false
	}
	v, err := strconv.ParseUint(whole+fraction+strings.Repeat("0", 6-len(fraction)), 10, 32)
	if err != nil || v == 0 || v > routetable.SamplePerMillion {
		r.problem(n, at, "%s is out of range; expected %s", shorten(text), expected)
		return 0, false
	}
	return uint32(v), true
}

// shareHint guesses what was meant: a share in percent, or in quotes.
func shareHint(text string) string {
	number, percent := strings.CutSuffix(strings.TrimSpace(text), "%")
	f, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if percent {
		f /= 100
	}
	if plain := strconv.FormatFloat(f, 'f', -1, 64); err == nil && f > 0 && f <= 1 && shareForm.MatchString(plain) {
		return fmt.Sprintf("; write %s", plain)
	}
	return ""
}

// percent reads a whole number of percent between two bounds.
func (r *reader) percent(n node, at *path, lowest, highest uint32) (uint32, bool) {
	if r.tagged(n, at) {
		return 0, false
	}
	expected := fmt.Sprintf("a whole number of percent, such as %d%%", highest/5)
	m := percentForm.FindStringSubmatch(n.text())
	if n.kind() != scalar || m == nil {
		hint := ""
		if v, ok := decimal(n.text()); n.kind() == scalar && ok && v >= uint64(lowest) && v <= uint64(highest) {
			hint = fmt.Sprintf(" (did you mean %d%%?)", v)
		}
		r.problem(n, at, "%s, expected %s%s", n.found(), expected, hint)
		return 0, false
	}
	v, err := strconv.ParseUint(m[1], 10, 32)
	if err != nil || v < uint64(lowest) || v > uint64(highest) {
		r.problem(n, at, "%s is out of range; allowed: %d%% to %d%%", shorten(n.text()), lowest, highest)
		return 0, false
	}
	return uint32(v), true
}

// size reads a number of bytes between two bounds.
func (r *reader) size(n node, at *path, lowest, highest uint32) (uint32, bool) {
	if r.tagged(n, at) {
		return 0, false
	}
	const expected = "a number of bytes, such as 8192, 64Ki or 10Mi"
	if n.kind() != scalar || n.scalarType() == nullType {
		r.problem(n, at, "%s, expected %s", n.found(), expected)
		return 0, false
	}
	m := sizeForm.FindStringSubmatch(n.text())
	if m == nil {
		hint := ""
		if g := sizeGuess.FindStringSubmatch(n.text()); g != nil {
			hint = fmt.Sprintf(" (did you mean %q?)", g[1]+strings.ToUpper(g[2])+"i")
		}
		r.problem(n, at, "%s, expected %s%s", n.found(), expected, hint)
		return 0, false
	}
	v, err := strconv.ParseUint(m[1], 10, 32)
	v *= sizeUnits[m[2]]
	if err != nil || v < uint64(lowest) || v > uint64(highest) {
		r.problem(n, at, "%s is out of range; allowed: %s to %s", shorten(n.text()), bytesText(lowest), bytesText(highest))
		return 0, false
	}
	return uint32(v), true
}

func bytesText(v uint32) string {
	switch {
	case v >= 1<<20 && v%(1<<20) == 0:
		return fmt.Sprintf("%dMi", v>>20)
	case v >= 1<<10 && v%(1<<10) == 0:
		return fmt.Sprintf("%dKi", v>>10)
	default:
		return strconv.FormatUint(uint64(v), 10)
	}
}
