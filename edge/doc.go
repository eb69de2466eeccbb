// Package edge is what stands in front of every handler of a service that the internet reaches: each part is a
// func(http.Handler) http.Handler that can be used alone.
//
//	address, err := edge.ClientAddress(edge.ClientAddressConfig{Trusted: []string{"10.0.0.0/8"}})
//	handler := edge.Recover(edge.Errors{})(address(mux))
//
// [ClientAddress] finds out who is on the other side of the proxies that are trusted, and is not fooled by what that
// one says of himself. [Recover] makes an answer of a panic. Errors are answered as problem documents (RFC 9457), with
// the status that they name themselves: see [Errors].
//
// What wraps a ResponseWriter has Unwrap, so that http.ResponseController works through it: streams are flushed, and
// connections hijacked, as without it.
//
// It does not authenticate, and it is no proxy: TLS, HTTP versions and slow senders are the server's and the load
// balancer's.
package edge
