package routetable_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

func field(name, value string) *routetablev1.Header {
	return &routetablev1.Header{Name: name, Value: value}
}

// fields returns n, sorted.
func fields(n int) (list []*routetablev1.Header) {
	for i := range n {
		list = append(list, field(string(rune('a'+i/26))+string(rune('a'+i%26)), ""))
	}
	return list
}

func TestEditsAreChecked(t *testing.T) {
	type endpoint = routetablev1.Endpoint
	edits := func(h *routetablev1.HeaderEdits) func(*endpoint) {
		return func(e *endpoint) { e.ResponseHeaders = h }
	}
	redirect := func(to string, status uint32) func(*endpoint) {
		return func(e *endpoint) {
			e.Pool, e.Answer = nil, &routetablev1.Endpoint_Redirect{Redirect: &routetablev1.Redirect{To: to, Status: status}}
		}
	}
	respond := func(r *routetablev1.Respond) func(*endpoint) {
		return func(e *endpoint) { e.Pool, e.Answer = nil, &routetablev1.Endpoint_Respond{Respond: r} }
	}
	const at = "endpoints[1]."
	tests := []struct {
		name   string
		change func(*endpoint)
		want   []string // how the problems begin
	}{
		{"edits", edits(&routetablev1.HeaderEdits{
			Set: []*routetablev1.Header{field("B", "${client}"), field("c", "")}, Add: []*routetablev1.Header{field("b", "$$")}, Remove: []string{"d", "server"},
		}), nil},
		{"most", edits(&routetablev1.HeaderEdits{Set: fields(64)}), nil},
		{"request", func(e *endpoint) { e.RequestHeaders = &routetablev1.HeaderEdits{Remove: []string{"cookie"}} }, nil},
		{"path", func(e *endpoint) { e.Rewrite = toPath("/x") }, nil},
		{"redirect", redirect("https://${host}${path}", 308), nil},
		{"respond", respond(&routetablev1.Respond{Status: 503, Body: []byte("x"), Headers: []*routetablev1.Header{field("Retry-After", "1")}}), nil},
		{"respond without a body", respond(&routetablev1.Respond{Status: 204}), nil},
		{"answer and response edits", func(e *endpoint) {
			redirect("/", 301)(e)
			edits(&routetablev1.HeaderEdits{Remove: []string{"a"}})(e)
		}, nil},

		{"empty", edits(&routetablev1.HeaderEdits{}), []string{"response_headers: is empty"}},
		{"too many", edits(&routetablev1.HeaderEdits{Set: fields(64), Remove: []string{"zz"}}), []string{"response_headers: has 65 fields; at most 64 are allowed"}},
		{"not set", edits(&routetablev1.HeaderEdits{Set: []*routetablev1.Header{nil}}), []string{"response_headers.set[0]: is not set"}},
		{"not sorted", edits(&routetablev1.HeaderEdits{Set: []*routetablev1.Header{field("B", ""), field("a", "")}}), []string{`response_headers.set[1]: "a" comes after "b"`}},
		{"twice", edits(&routetablev1.HeaderEdits{Add: []*routetablev1.Header{field("B", ""), field("b", "")}}), []string{`response_headers.add[1]: "b" is there twice`}},
		{"remove twice", edits(&routetablev1.HeaderEdits{Remove: []string{"b", "b"}}), []string{`response_headers.remove[1]: "b" is there twice`}},
		{"remove in upper case", edits(&routetablev1.HeaderEdits{Remove: []string{"B"}}), []string{`response_headers.remove[0]: "B" has upper-case letters; write "b"`}},
		{"set and removed", edits(&routetablev1.HeaderEdits{Set: []*routetablev1.Header{field("B", "")}, Remove: []string{"b"}}), []string{`response_headers.remove[0]: "b" is both set and removed`}},
		{"name", edits(&routetablev1.HeaderEdits{Set: []*routetablev1.Header{field("a b", "")}}), []string{`response_headers.set[0].name: "a b" is not a valid header field name`}},
		{"value", edits(&routetablev1.HeaderEdits{Set: []*routetablev1.Header{field("a", "b\r\nc: d")}}), []string{`response_headers.set[0].value: "b\r\nc: d" contains a control character`}},
		{"variable", edits(&routetablev1.HeaderEdits{Set: []*routetablev1.Header{field("a", "${ip}")}}), []string{`response_headers.set[0].value: "${ip}": there is no variable`}},
		{"request of nothing", func(e *endpoint) { e.RequestHeaders = &routetablev1.HeaderEdits{} }, []string{"request_headers: is empty"}},
		{"prefix", func(e *endpoint) { e.Rewrite = toPrefix("/x") }, []string{"rewrite: replaces a prefix, but the endpoint has none"}},
		{"location", redirect("evil.example", 302), []string{`redirect.to: "evil.example" is no location`}},
		{"status of a redirect", redirect("/", 304), []string{"redirect.status: 304 does not redirect; it must be 301, 302, 303, 307 or 308"}},
		{"status", respond(&routetablev1.Respond{Status: 199}), []string{"respond.status: 199 is out of range; it must be 200 to 599"}},
		{"body of 204", respond(&routetablev1.Respond{Status: 204, Body: []byte("x")}), []string{"respond.body: is not empty, but a response with status 204 has no body"}},
		{"long body", respond(&routetablev1.Respond{Status: 200, Body: make([]byte, 64<<10+1)}), []string{"respond.body: has 65537 bytes; at most 65536 are allowed"}},
		{"field of an answer", respond(&routetablev1.Respond{Status: 200, Headers: []*routetablev1.Header{field("Content-Length", "5")}}), []string{`respond.headers[0].name: "Content-Length" cannot be edited: it says where the message ends`}},
		{"answer and pool", func(e *endpoint) {
			pool := e.Pool
			redirect("/", 301)(e)
			e.Pool = pool
		}, []string{"pool: has backends, but the endpoint answers by itself"}},
		{"answer and rewrite", func(e *endpoint) {
			redirect("/", 301)(e)
			e.Rewrite = toPath("/x")
		}, []string{" changes requests, but forwards none: it answers by itself"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			table := small()
			test.change(table.Endpoints[1])
			var got []string
			for i, p := range routetable.Problems(routetable.Validate(table)) {
				message, _ := strings.CutPrefix(p.Error(), at)
				message, _ = strings.CutPrefix(message, strings.TrimSuffix(at, ".")+":")
				if i < len(test.want) && strings.HasPrefix(message, test.want[i]) {
					message = test.want[i]
				}
				got = append(got, message)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRequestIDsMustExist(t *testing.T) {
	for _, change := range []func(*routetablev1.Endpoint){
		func(e *routetablev1.Endpoint) {
			e.RequestHeaders = &routetablev1.HeaderEdits{Set: []*routetablev1.Header{field("a", "${requestId}")}}
		},
		func(e *routetablev1.Endpoint) {
			e.Pool, e.Answer = nil, &routetablev1.Endpoint_Redirect{Redirect: &routetablev1.Redirect{To: "/${requestId}", Status: 302}}
		},
	} {
		table := small()
		change(table.Endpoints[1])
		for _, ids := range []bool{true, false} {
			table.RequestId = ids
			if err := routetable.Validate(table); (err == nil) != ids {
				t.Errorf("with request ids %t: %v", ids, err)
			}
		}
	}
}

// What frames or forwards a message cannot be edited, however its name is written.
func TestNamesThatCannotBeEdited(t *testing.T) {
	for _, name := range []string{
		"Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization",
		"TE", "Trailer", "Upgrade", "Expect", "Max-Forwards", "Via", "Host", "Date", "X-Request-Id",
		"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host",
	} {
		for _, written := range []string{name, strings.ToLower(name), strings.ToUpper(name), strings.ReplaceAll(name, "-", "_")} {
			if err := routetable.CheckEditName(written); err == nil || !strings.Contains(err.Error(), "cannot be edited: ") {
				t.Errorf("%s: %v", written, err)
			}
		}
	}
	for _, name := range []string{"Server", "Cookie", "X-Forwarded", "Authorization", "Content-Type", "Forwarded", "x_beta", "Location"} {
		if err := routetable.CheckEditName(name); err != nil {
			t.Error(err)
		}
	}
}
