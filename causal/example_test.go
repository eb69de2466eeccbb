package causal_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	"github.com/loadlinehq/loadline/causal"
)

func Example() {
	keys, err := causal.NewKeys([]byte("0123456789abcdef0123456789abcdef"))
	if err != nil {
		fmt.Println(err)
		return
	}

	// A request begins with what its client brings, and notes what it writes.
	session := causal.NewSession(causal.Token{})
	ctx := causal.WithSession(context.Background(), session)
	causal.FromContext(ctx).Add(causal.Mark{System: 7, Timeline: 1, LSN: 0x1A2B3C}) // db does this

	// The client keeps the token, and comes back with it.
	signed := keys.Sign(session.Token())
	token, err := keys.Verify(signed)
	if err != nil {
		fmt.Println(err)
		return
	}
	mark, ok := token.Mark(7)
	fmt.Println(mark.LSN, ok, len(signed) < causal.MaxSize)
	// Output: 0/1A2B3C true true
}

func ExampleTransport() {
	keys, err := causal.NewKeys([]byte("0123456789abcdef0123456789abcdef"))
	if err != nil {
		fmt.Println(err)
		return
	}
	sessions, err := causal.NewHTTP(causal.HTTPConfig{Keys: keys, DisableCookie: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	orders := httptest.NewServer(sessions.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		causal.FromContext(r.Context()).Add(causal.Mark{System: 7, Timeline: 1, LSN: 0x1A2B3C}) // db does this
	})))
	defer orders.Close()

	// Another service calls it while it serves a request.
	transport, err := causal.NewTransport(causal.TransportConfig{Keys: keys})
	if err != nil {
		fmt.Println(err)
		return
	}
	client := &http.Client{Transport: transport}
	ctx := causal.WithSession(context.Background(), causal.NewSession(causal.Token{})) // HTTP.Handler does this
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, orders.URL, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	response, err := client.Do(request)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body) // to its end: a trailer may follow

	mark, ok := causal.FromContext(ctx).Token().Mark(7)
	fmt.Println(mark.LSN, ok)
	// Output: 0/1A2B3C true
}
