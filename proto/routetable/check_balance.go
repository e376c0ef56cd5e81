package routetable

import (
	"errors"
	"fmt"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

// CheckKeyHeader says what is wrong with the field name of a key, in wire form: lower
// case.
func CheckKeyHeader(name string) error { return checkFieldName(name, "x-user", "a key") }

// CheckCookieName says what is wrong with the name of a cookie (RFC 6265 section
// 4.1.1). Its letter case counts.
func CheckCookieName(name string) error {
	switch {
	case name == "":
		return errors.New("is empty; it must be the name of a cookie such as SESSION")
	case len(name) > MaxCookieBytes:
		return fmt.Errorf("%s has %d bytes; at most %d are allowed", quote(name), len(name), MaxCookieBytes)
	case !isToken(name):
		return fmt.Errorf("%s is not a valid name of a cookie", quote(name))
	}
	return nil
}

// loadBalancing checks how an endpoint chooses a backend. What is the default must be
// left out: two forms would be two versions.
func (v *validation) loadBalancing(w *where, l *routetablev1.LoadBalancing) {
	if l == nil {
		return
	}
	v.known("load_balancing", w, l)
	hashes := l.GetPolicy() == routetablev1.Policy_POLICY_CONSISTENT_HASH
	switch l.GetPolicy() {
	case routetablev1.Policy_POLICY_UNSPECIFIED:
		if l.GetSlowStart() == nil {
			v.report("load_balancing", w, "has nothing but defaults; it must be left out")
		}
	case routetablev1.Policy_POLICY_LEAST_REQUEST, routetablev1.Policy_POLICY_RANDOM, routetablev1.Policy_POLICY_CONSISTENT_HASH:
	default:
		v.report("load_balancing.policy", w, "%d is not known to this release; upgrade the data plane first", l.GetPolicy())
	}
	switch {
	case hashes && l.GetKey() == nil:
		v.report("load_balancing.key", w, "is not set; CONSISTENT_HASH needs one")
	case hashes:
		v.hashKey("load_balancing.key", w, l.GetKey())
	case l.GetKey() != nil:
		v.report("load_balancing.key", w, "is set; only CONSISTENT_HASH has one")
	}
	if l.GetSlowStart() != nil {
		v.duration("load_balancing.slow_start", w, l.GetSlowStart())
	}
}

// hashKey checks a key of CONSISTENT_HASH.
func (v *validation) hashKey(field string, w *where, k *routetablev1.Key) {
	v.known(field, w, k)
	name := field + ".name"
	switch k.GetKind() {
	case routetablev1.KeyKind_KEY_KIND_HEADER:
		v.check(name, w, CheckKeyHeader(k.GetName()))
	case routetablev1.KeyKind_KEY_KIND_COOKIE:
		v.check(name, w, CheckCookieName(k.GetName()))
	case routetablev1.KeyKind_KEY_KIND_CLIENT_IP, routetablev1.KeyKind_KEY_KIND_PATH:
		if k.GetName() != "" {
			v.report(name, w, "is %s; this kind of key has none", quote(k.GetName()))
		}
	case routetablev1.KeyKind_KEY_KIND_UNSPECIFIED:
		v.report(field+".kind", w, "is not set")
	default:
		v.report(field+".kind", w, "%d is not known to this release; upgrade the data plane first", k.GetKind())
	}
}
