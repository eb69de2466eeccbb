package stack

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/internal/ratio"
)

// What the balancer, with the instance's fault proxy, costs a request on a connection that is kept, against the same
// request to the instance itself, whose handler does nothing.
func BenchmarkBalancer(b *testing.B) {
	instance := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	b.Cleanup(instance.Close)
	through := balance(b, instance.Listener.Addr().String())

	const requests = 500
	var result ratio.Result
	for b.Loop() {
		var err error
		if result, err = ratio.Measure(40, fetch(instance.Listener.Addr(), requests), fetch(addr(through), requests)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(result.Median, "times-direct")
	fmt.Printf("# request through the balancer / direct: %s\n", result)
}

type addr string

func (a addr) String() string { return string(a) }

func fetch(to fmt.Stringer, requests int) func() (time.Duration, error) {
	client := &http.Client{Transport: &http.Transport{DialContext: (&net.Dialer{}).DialContext}}
	return func() (time.Duration, error) {
		began := time.Now()
		for range requests {
			response, err := client.Get("http://" + to.String())
			if err != nil {
				return 0, err
			}
			_, _ = io.Copy(io.Discard, response.Body)
			_ = response.Body.Close()
		}
		return time.Since(began), nil
	}
}
