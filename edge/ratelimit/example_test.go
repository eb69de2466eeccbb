package ratelimit_test

import (
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/loadlinehq/loadline/edge/ratelimit"
)

func Example() {
	limiter, err := ratelimit.New(ratelimit.Config{}, ratelimit.Policy{ // Config.Redis counts for all instances
		Name: "key", Limit: 60, Window: time.Minute, Burst: 2,
		Key: func(r *http.Request) string { return r.Header.Get("Api-Key") },
	})
	if err != nil {
		log.Fatal(err)
	}
	handler := limiter.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "here you are") }))
	for range 3 {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Api-Key", "k1")
		rec := httptest.NewRecorder()
		handler.ServeHTTP(rec, r)
		fmt.Println(rec.Code, rec.Header().Get("RateLimit"))
	}
	// Output:
	// 200 "key";r=1;t=1
	// 200 "key";r=0;t=1
	// 429 "key";r=0;t=1
}
