package diff

import (
	"crypto/sha256"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

const (
	// longText is from how many bytes on two lists are not written out, and longValue
	// the same for one value, of which shownValue are.
	longText   = 120
	longValue  = 100
	shownValue = 60
	// shownElements is how many elements of a long list are named.
	shownElements = 5
)

// keys are those of the file whose names are not those of the fields.
var keys = map[protoreflect.FullName]string{
	"routetable.v1.RouteTable.hide_metrics_on_proxy_port": "metrics.onProxyPort",
	"routetable.v1.RouteTable.resolve_interval":           "dns.interval",
	"routetable.v1.Limits.max_header_count":               "maxHeaders",
	"routetable.v1.Limits.max_uri_bytes":                  "maxURIBytes",
	"routetable.v1.AccessLog.sample_per_million":          "sample",
	"routetable.v1.Endpoint.hosts":                        "host",
	"routetable.v1.Endpoint.replace_host":                 "preserveHost",
	"routetable.v1.Endpoint.active_check":                 "healthCheck.active",
	"routetable.v1.Endpoint.passive_check":                "healthCheck.passive",
	"routetable.v1.Endpoint.refuse_when_unhealthy":        "panic",
	"routetable.v1.ActiveCheck.jitter_percent":            "jitter",
	"routetable.v1.Retry.budget_percent":                  "budget",
	"routetable.v1.LoadBalancing.key":                     "on",
}

func keyOf(f protoreflect.FieldDescriptor) string {
	if key, ok := keys[f.FullName()]; ok {
		return key
	}
	return f.JSONName()
}

// unsets say what it means that a field is not set, where that is not "none".
var unsets = map[protoreflect.FullName]string{
	"routetable.v1.RouteTable.resolve_interval": "10s",
	"routetable.v1.Endpoint.hosts":              "any",
	"routetable.v1.Endpoint.methods":            "any",
	"routetable.v1.Timeouts.request":            "0s",
	"routetable.v1.LoadBalancing.slow_start":    "0s",
	"routetable.v1.Retry.per_try_timeout":       "0s",
}

func unset(f protoreflect.FieldDescriptor) string {
	if word, ok := unsets[f.FullName()]; ok {
		return word
	}
	return "none"
}

// values write fields whose values are other ones in the file.
var values = map[protoreflect.FullName]func(protoreflect.Value) string{
	"routetable.v1.RouteTable.hide_metrics_on_proxy_port": not,
	"routetable.v1.Endpoint.replace_host":                 not,
	"routetable.v1.Endpoint.refuse_when_unhealthy": func(v protoreflect.Value) string {
		if v.Bool() {
			return "refuse"
		}
		return "useAll"
	},
	"routetable.v1.AccessLog.sample_per_million": func(v protoreflect.Value) string {
		return strconv.FormatFloat(float64(v.Uint())/1e6, 'f', -1, 64)
	},
	"routetable.v1.ActiveCheck.jitter_percent": percent,
	"routetable.v1.Retry.budget_percent":       percent,
}

func not(v protoreflect.Value) string { return strconv.FormatBool(!v.Bool()) }

func percent(v protoreflect.Value) string { return strconv.FormatUint(v.Uint(), 10) + "%" }

// group reports whether a field is a mapping in the file, whose keys are compared one
// by one.
func group(f protoreflect.FieldDescriptor) bool {
	return f.Message() != nil && !f.IsList() && written[f.Message().FullName()] == nil
}

// implied are mappings that mean something also when they are not there: what they do
// when they are empty.
var implied = map[protoreflect.FullName]bool{
	"routetable.v1.Endpoint.load_balancing":   true,
	"routetable.v1.Endpoint.request_headers":  true,
	"routetable.v1.Endpoint.response_headers": true,
}

// written are the messages that are one value in the file.
var written = map[protoreflect.FullName]func(protoreflect.ProtoMessage) string{
	"google.protobuf.Duration":  func(m protoreflect.ProtoMessage) string { return m.(*durationpb.Duration).AsDuration().String() },
	"routetable.v1.Key":         func(m protoreflect.ProtoMessage) string { return property(m.(*routetablev1.Key)) },
	"routetable.v1.StatusRange": func(m protoreflect.ProtoMessage) string { return statuses(m.(*routetablev1.StatusRange)) },
	"routetable.v1.Header": func(m protoreflect.ProtoMessage) string {
		return header(m.(*routetablev1.Header).GetName(), m.(*routetablev1.Header).GetValue())
	},
	"routetable.v1.HeaderMatch": func(m protoreflect.ProtoMessage) string {
		return header(m.(*routetablev1.HeaderMatch).GetName(), m.(*routetablev1.HeaderMatch).GetValue())
	},
}

// property is what of a request a key is.
func property(k *routetablev1.Key) string {
	kind := word(k.GetKind().Descriptor(), k.GetKind().Number())
	if k.GetKind() == routetablev1.KeyKind_KEY_KIND_CLIENT_IP {
		kind = "clientIP"
	}
	if k.GetName() != "" {
		return kind + ":" + k.GetName()
	}
	return kind
}

func statuses(r *routetablev1.StatusRange) string {
	if r.GetFirst() == r.GetLast() {
		return strconv.FormatUint(uint64(r.GetFirst()), 10)
	}
	return fmt.Sprintf("%d-%d", r.GetFirst(), r.GetLast())
}

func header(name, value string) string { return name + ": " + plain(value) }

// text writes the value that a field has in a message.
func text(f protoreflect.FieldDescriptor, m protoreflect.Message) string {
	switch {
	case f.HasPresence() && !m.Has(f):
		return unset(f)
	case f.IsList():
		return strings.Join(elements(f, m), ", ")
	}
	return value(f, m.Get(f))
}

// elements writes those of a list.
func elements(f protoreflect.FieldDescriptor, m protoreflect.Message) []string {
	list := m.Get(f).List()
	texts := make([]string, list.Len())
	for i := range texts {
		texts[i] = value(f, list.Get(i))
	}
	return texts
}

// value writes one value.
func value(f protoreflect.FieldDescriptor, v protoreflect.Value) string {
	if write := values[f.FullName()]; write != nil {
		return write(v)
	}
	switch f.Kind() {
	case protoreflect.StringKind:
		return plain(v.String())
	case protoreflect.BytesKind:
		return plain(string(v.Bytes()))
	case protoreflect.EnumKind:
		return word(f.Enum(), v.Enum())
	case protoreflect.MessageKind:
		if write := written[f.Message().FullName()]; write != nil {
			return write(v.Message().Interface())
		}
		return inside(v.Message())
	}
	return fmt.Sprint(v.Interface())
}

// inside writes what is set in a message.
func inside(m protoreflect.Message) string {
	var parts []string
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		switch f := fields.Get(i); {
		case m.Has(f) && f.IsList():
			parts = append(parts, keyOf(f)+" ["+text(f, m)+"]")
		case m.Has(f):
			parts = append(parts, keyOf(f)+" "+text(f, m))
		}
	}
	if len(parts) == 0 {
		return "{}"
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// plain writes a text so that it is one word of a line: in quotes where it could be
// mistaken, and with its beginning and what tells it from others where it is long.
func plain(s string) string {
	if len(s) > longValue {
		cut := shownValue
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		sum := sha256.Sum256([]byte(s))
		return fmt.Sprintf("%q… (%d bytes, SHA-256 %x…)", s[:cut], len(s), sum[:4])
	}
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == '"' || r == ',' || !strconv.IsPrint(r) }) || !utf8.ValidString(s) {
		return strconv.Quote(s)
	}
	return s
}

// some names the first elements of a list.
func some(list []string) string {
	shown := strings.Join(list[:min(len(list), shownElements)], ", ")
	if more := len(list) - shownElements; more > 0 {
		shown += fmt.Sprintf(" and %d more", more)
	}
	return shown
}

// word writes the value of an enum as in the file: what its name has beyond that of
// the enum, in camel case, which begins with a capital letter for policies.
func word(e protoreflect.EnumDescriptor, n protoreflect.EnumNumber) string {
	v := e.Values().ByNumber(n)
	if v == nil {
		return strconv.Itoa(int(n))
	}
	if v.FullName() == "routetable.v1.POLICY_UNSPECIFIED" {
		return "RoundRobin"
	}
	zero := string(e.Values().ByNumber(0).Name())
	name := strings.TrimPrefix(string(v.Name()), strings.TrimSuffix(zero, "UNSPECIFIED"))
	var b strings.Builder
	for i, part := range strings.Split(name, "_") {
		if i == 0 && e.FullName() != "routetable.v1.Policy" {
			b.WriteString(strings.ToLower(part))
			continue
		}
		b.WriteString(part[:1] + strings.ToLower(part[1:]))
	}
	return b.String()
}
