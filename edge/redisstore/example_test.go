package redisstore_test

import (
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/redis/rueidis"

	"github.com/loadlinehq/loadline/edge"
	"github.com/loadlinehq/loadline/edge/redisstore"
)

func Example() {
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{"redis-1:6379"}})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	store, err := redisstore.New(client, redisstore.Config{})
	if err != nil {
		log.Fatal(err)
	}
	idempotent, err := edge.Idempotency(edge.IdempotencyConfig{
		Store:     store,
		Principal: func(r *http.Request) string { return "who was authenticated" },
		Required:  func(r *http.Request) bool { return r.URL.Path == "/payments" },
	})
	if err != nil {
		log.Fatal(err)
	}
	handler := edge.Keys(edge.Errors{})(idempotent(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "the provider is given the key", edge.KeyOf(r.Context()).Text)
	})))
	r := httptest.NewRequest(http.MethodPost, "/payments", strings.NewReader("{}"))
	r.Header.Set("Idempotency-Key", "8e03978e-40d5-43e8-bc93-6894a57f9324")
	handler.ServeHTTP(httptest.NewRecorder(), r)
}
