// Package ratelimit bounds how many requests somebody may make in a while, over all instances of a service.
//
//	limiter, err := ratelimit.New(ratelimit.Config{Redis: client, Instances: func() int { return 4 }},
//		ratelimit.Policy{Name: "address", Limit: 120, Window: time.Minute, Key: ratelimit.ByAddress})
//	handler = limiter.Handler(handler)
//
// It counts by the generic cell rate algorithm (GCRA, ITU-T I.371), in integers: one number for each key, no window that
// begins for all at once. Several policies are looked at before any is charged, so that who is refused by one does not pay
// for the others. The answer says what is left, by the RateLimit and RateLimit-Policy fields of
// draft-ietf-httpapi-ratelimit-headers-10, and a refusal when to try again.
//
// With Redis the count is the fleet's, by Redis's clock; who was refused is refused without asking again. While Redis does
// not answer within [Config].Timeout, each instance counts for itself, with its share of the limit. Without Redis it always does so.
//
// A burst may be as large as Limit: an idle client can make nearly twice Limit in his first window. Where that must not
// be, set Burst. It does not say who somebody is: see edge.ClientAddress, and the application's authentication.
package ratelimit
