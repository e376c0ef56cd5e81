package config

import (
	"slices"

	"reverseproxy/proto/routetable"
)

// failures are the values of retry.on.
var failures = []string{"connectFailure", "reset", "timeout", "502", "503", "504"}

func (r *reader) retry(n node, at *path, s *schema, into *Retry) {
	r.mapping(n, at, s, "{attempts: 2}", func(key *schema, v node, at *path) {
		switch key.key {
		case "attempts":
			if i, ok := r.integer(v, at, 1, routetable.MaxAttempts); ok {
				into.Attempts = i
			}
		case "on":
			r.retryOn(v, at, into)
		case "perTryTimeout":
			if d, ok := r.optionalDuration(v, at); ok {
				into.PerTryTimeout = orUnlimited(d)
			}
		case "budget":
			if p, ok := r.percent(v, at, 1, 100); ok {
				into.BudgetPercent = p
			}
		default:
			panic("unread key " + key.path)
		}
	})
}

func (r *reader) retryOn(n node, at *path, into *Retry) {
	if n.kind() == list && n.length() == 0 {
		r.problem(n, at, "the list is empty; to send nothing again, write attempts: 1")
		return
	}
	var on []string
	if r.list(n, at, "failures", inList(n, "write [connectFailure, reset]"), func(n node, at *path) {
		if failure, ok := r.failure(n, at); ok {
			on = append(on, failure)
		}
	}) {
		into.On = canonical(on)
	}
}

// failure reads a word, or a status, which needs no quotes.
func (r *reader) failure(n node, at *path) (string, bool) {
	if n.kind() == scalar && n.scalarType() == intType && n.explicitTag() == "" && slices.Contains(failures, n.text()) {
		return n.text(), true
	}
	return r.choice(n, at, failures)
}
