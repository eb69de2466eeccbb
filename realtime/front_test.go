package realtime_test

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"testing"
)

// newFront is a load balancer: it takes the first server that takes the client.
func newFront(t testing.TB, targets ...string) *httptest.Server {
	t.Helper()
	var first atomic.Int64
	var proxies []*httputil.ReverseProxy
	for i, target := range targets {
		u, err := url.Parse(target)
		if err != nil {
			t.Fatal(err)
		}
		proxies = append(proxies, &httputil.ReverseProxy{
			Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(u); r.Out.Host = r.In.Host },
			ModifyResponse: func(r *http.Response) error {
				if r.StatusCode == http.StatusServiceUnavailable && int(first.Load()) == i {
					first.Store(int64(i+1) % int64(len(targets)))
				}
				return nil
			},
			ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
				first.CompareAndSwap(int64(i), int64(i+1)%int64(len(targets)))
				w.WriteHeader(http.StatusBadGateway)
			},
		})
	}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { proxies[first.Load()].ServeHTTP(w, r) }))
	t.Cleanup(func() {
		front.CloseClientConnections()
		front.Close()
	})
	return front
}
