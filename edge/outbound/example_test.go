package outbound_test

import (
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"sync/atomic"

	"github.com/loadlinehq/loadline/edge/outbound"
)

func Example() {
	var calls atomic.Int64
	payments := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if calls.Add(1) == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer payments.Close()
	caller, err := outbound.New(outbound.Config{Name: "payments", Next: payments.Client().Transport})
	if err != nil {
		log.Fatal(err)
	}
	defer caller.Close()
	client := &http.Client{Transport: caller}

	answer, err := client.Get(payments.URL)
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	fmt.Println(answer.StatusCode, "after", calls.Load(), "calls")
	// Output: 200 after 2 calls
}
