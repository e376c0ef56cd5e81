package http1

// Name is a field name this package knows; OtherName is any other.
type Name uint8

// The field names that a proxy has to do something about.
const (
	OtherName Name = iota
	Host
	ContentLength
	TransferEncoding
	Connection
	KeepAlive
	ProxyConnection
	ProxyAuthenticate
	ProxyAuthorization
	TE
	Trailer
	Upgrade
	Expect
	Via
	Forwarded
	XForwardedFor
	XForwardedProto
	XForwardedHost
	MaxForwards
	Date
	Server
	XRequestID
	Referer
	UserAgent
	Cookie

	names // how many there are
)

// lowerNames holds the names in lower case.
var lowerNames = [names]string{
	Host:               "host",
	ContentLength:      "content-length",
	TransferEncoding:   "transfer-encoding",
	Connection:         "connection",
	KeepAlive:          "keep-alive",
	ProxyConnection:    "proxy-connection",
	ProxyAuthenticate:  "proxy-authenticate",
	ProxyAuthorization: "proxy-authorization",
	TE:                 "te",
	Trailer:            "trailer",
	Upgrade:            "upgrade",
	Expect:             "expect",
	Via:                "via",
	Forwarded:          "forwarded",
	XForwardedFor:      "x-forwarded-for",
	XForwardedProto:    "x-forwarded-proto",
	XForwardedHost:     "x-forwarded-host",
	MaxForwards:        "max-forwards",
	Date:               "date",
	Server:             "server",
	XRequestID:         "x-request-id",
	Referer:            "referer",
	UserAgent:          "user-agent",
	Cookie:             "cookie",
}

// String returns the name in lower case, empty for OtherName.
func (n Name) String() string {
	if n >= names {
		return ""
	}
	return lowerNames[n]
}

// nameSet is a set of known names.
type nameSet uint32

func setOf(list ...Name) (s nameSet) {
	for _, n := range list {
		s |= 1 << n
	}
	return s
}

func (s nameSet) has(n Name) bool { return s>>n&1 != 0 }

// hopNames are the fields that end at this hop whether or not Connection names
// them. The package comment has the reasons.
var hopNames = setOf(Connection, KeepAlive, ProxyConnection, TE, Upgrade, ProxyAuthenticate, ProxyAuthorization)

// lastingNames are the fields that Connection cannot strip: without them the next
// hop would read another message than we did, or not know that the client waits
// for a 100.
var lastingNames = setOf(Host, ContentLength, TransferEncoding, Expect)

// nameTable finds the only known name of a length and a first letter. Its filling
// checks that there is only one.
var nameTable = func() (t [20][32]Name) {
	for n := OtherName + 1; n < names; n++ {
		s := lowerNames[n]
		cell := &t[len(s)][s[0]&31]
		if *cell != OtherName {
			panic("http1: two names with the length and first letter of " + s)
		}
		*cell = n
	}
	return t
}()

// disguised reports whether name becomes a known name when "_" is read as "-", as
// CGI, WSGI and their like do with every name.
func disguised(name []byte) bool {
	if len(name) == 0 || len(name) >= len(nameTable) {
		return false
	}
	n := nameTable[len(name)][name[0]&31]
	if n == OtherName || n == UserAgent { // which is only read
		return false
	}
	for i, c := range name {
		if c == '_' {
			c = '-'
		}
		if lowerCase(c) != lowerNames[n][i] {
			return false
		}
	}
	return true
}

// lookupName returns the known name that name is, ignoring case.
func lookupName(name []byte) Name {
	if len(name) == 0 || len(name) >= len(nameTable) {
		return OtherName
	}
	n := nameTable[len(name)][name[0]&31]
	if n != OtherName && foldEqual(name, lowerNames[n]) {
		return n
	}
	return OtherName
}
