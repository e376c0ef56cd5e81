package proxy_test

import (
	"fmt"
	"strings"
	"testing"

	"reverseproxy/dataplane/internal/sample"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// TestSamples: what is kept of a request decides about routing, and nothing else is kept.
func TestSamples(t *testing.T) {
	shop := answering(&routetablev1.Respond{Status: 200})
	shop.Name, shop.Hosts, shop.Methods = "shop", []string{"shop.example.com"}, []string{"GET", "OPTIONS"}
	shop.Path = &routetablev1.Endpoint_Prefix{Prefix: "/a"}
	w := newWorld(t, shop)
	c := w.accept()
	for _, r := range []string{
		"GET /a/%7Ex/../b?secret=1 HTTP/1.1\r\nHost: Shop.Example.com:8080\r\nCookie: secret\r\nAuthorization: secret\r\n\r\n",
		"POST /a?secret HTTP/1.1\r\nHost: shop.example.com\r\nContent-Length: 6\r\n\r\nsecret",
		"GET http://other.example.com?secret HTTP/1.1\r\nHost: other.example.com\r\nReferer: secret\r\n\r\n",
		"PROPFIND /a/b HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: shop.example.com\r\n\r\n",
		"TRACE /a HTTP/1.1\r\nHost: shop.example.com\r\n\r\n",
	} {
		w.data(c, r)
	}
	got := map[string]string{}
	for _, s := range w.samples.Take([]uint64{1}) {
		got[fmt.Sprintf("%s %s %s", s.Method, s.Host, s.Path)] = s.Endpoint
		if strings.Contains(fmt.Sprintf("%+v", s), "secret") {
			t.Errorf("a sample has more than is needed: %+v", s)
		}
	}
	want := map[string]string{
		"GET shop.example.com /a/b": "shop", "POST shop.example.com /a": "", "GET other.example.com /": "", "PROPFIND [::1] /a/b": "",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("samples are\n%v, want\n%v", got, want)
	}
	// Neither a path that climbs above the root, nor what is no request.
	for _, r := range []string{"GET /../x HTTP/1.1\r\nHost: h\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"} {
		w.data(w.accept(), r)
	}
	if got := w.samples.Take([]uint64{3}); len(got) > 0 {
		t.Errorf("samples of malformed requests: %v", got)
	}
	var off *sample.Set
	if off.Shard(0) != nil {
		t.Error("there are samples although nobody wants them")
	}
}
