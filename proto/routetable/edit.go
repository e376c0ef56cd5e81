package routetable

import (
	"errors"
	"fmt"
	"strings"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

// CheckEditName says what is wrong with the name of a header field that is to be
// set, added or removed, in requests or responses: it must not change how a
// message is framed or forwarded. The letter case of a name means nothing.
func CheckEditName(name string) error {
	switch {
	case name == "":
		return errors.New("is empty; it must be a header field such as X-Beta")
	case len(name) > MaxHeaderBytes:
		return fmt.Errorf("%s has %d bytes; at most %d are allowed", quote(name), len(name), MaxHeaderBytes)
	case !isToken(name):
		return fmt.Errorf("%s is not a valid header field name", quote(name))
	}
	// Backends that turn names into CGI variables read "_" and "-" as one.
	if why := notEdited[strings.ReplaceAll(string(AppendLower(nil, name)), "_", "-")]; why != "" {
		return fmt.Errorf("%s cannot be edited: %s", quote(name), why)
	}
	return nil
}

const (
	ofFraming    = "it says where the message ends, which only who sends it knows"
	ofConnection = "it belongs to the connection, not to the message"
	ofForwarding = "it is written anew from what the data plane sees; trustedProxies says from whom it is taken over"
)

// notEdited are the fields that are not edited, and why.
var notEdited = map[string]string{
	"content-length":      ofFraming,
	"transfer-encoding":   ofFraming,
	"trailer":             ofFraming,
	"connection":          ofConnection,
	"keep-alive":          ofConnection,
	"proxy-authenticate":  ofConnection,
	"proxy-authorization": ofConnection,
	"proxy-connection":    ofConnection,
	"te":                  ofConnection,
	"upgrade":             ofConnection,
	"expect":              "client and backend agree with it on when the body is sent",
	"max-forwards":        "every proxy counts it down",
	"via":                 "every proxy adds itself to it, so that loops are noticed",
	"x-forwarded-for":     ofForwarding,
	"x-forwarded-host":    ofForwarding,
	"x-forwarded-proto":   ofForwarding,
	"host":                "requests have the client's, or with preserveHost: false that of the backend's URL",
	"date":                "it is the time of the response",
	"x-request-id":        "requestId: true gives one to every request and response",
}

// CheckEditValue says what is wrong with the value of a header field that is set
// or added.
func CheckEditValue(value string) (Template, error) {
	if err := CheckHeaderValue(value); err != nil {
		return nil, err
	}
	return ParseTemplate(value)
}

// FieldLines returns the lines of header fields that are valid.
func FieldLines(fields ...*routetablev1.Header) Template {
	var lines Template
	for _, f := range fields {
		value, err := CheckEditValue(f.GetValue())
		if err != nil {
			panic("a valid table has an invalid field: " + err.Error())
		}
		lines = lines.join(piece{text: f.GetName() + ": "})
		for _, p := range value {
			lines = lines.join(p)
		}
		lines = lines.join(piece{text: "\r\n"})
	}
	return lines
}

// join adds a piece; a text behind a text becomes one with it.
func (t Template) join(p piece) Template {
	if n := len(t); n > 0 && t[n-1].variable == noVariable && p.variable == noVariable {
		t[n-1].text += p.text
		return t
	}
	return append(t, p)
}
