// Package outbound keeps calls to another service from taking one's own with it: each has a time, a service that fails is
// not asked for a while, what may be repeated is repeated within a budget, and what cannot be had can be answered by
// something else.
//
//	caller, err := outbound.New(outbound.Config{Name: "payments"})
//	client := &http.Client{Transport: caller}
//
// The breaker is failsafe-go's. Only requests that may be repeated are (RFC 9110, 9.2.2, and those with an Idempotency-Key),
// with a doubling, jittered wait, or the answer's Retry-After; repetitions are a tenth of the calls at most, whatever
// fails, so that they do not finish off a service that is slow; and the service is told how long its caller
// waits (edge.TimeoutHeader).
//
// Use one Caller for each service: what they have in common is a breaker and a budget. Repeat at one layer only.
package outbound
