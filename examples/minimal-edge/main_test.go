package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/edge"
	"github.com/loadlinehq/loadline/edge/pgstore"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

// An order that is sent twice is one with a key, and two without; and who comes too often is refused, whoever he says he
// is.
func TestOrders(t *testing.T) {
	t.Parallel()
	purchase := fstest.MapFS{"00001_purchase.sql": {Data: []byte("-- +goose Up\nCREATE TABLE purchase (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text NOT NULL);\n")}}
	d := stacktest.Postgres(t, stacktest.Migrated(purchase, pgstore.Migrations))
	router, err := db.Open(t.Context(), db.Config{Primary: d.URL, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(router.Close)
	handler, err := shop(router)
	if err != nil {
		t.Fatal(err)
	}
	order := func(key string, forwarded ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodPost, "/orders?what=tea", nil)
		r.RemoteAddr = "127.0.0.1:4000"
		r.Header.Set("X-Forwarded-For", strings.Join(forwarded, ", "))
		if key != "" {
			r.Header.Set("Idempotency-Key", key)
		}
		rec := httptest.NewRecorder()
		handler.ServeHTTP(rec, r)
		return rec
	}
	for i, want := range []string{"/orders/1", "/orders/1", "/orders/2", "/orders/3"} {
		key := "a"
		if i > 1 {
			key = ""
		}
		rec := order(key, "203.0.113.7")
		if rec.Code != http.StatusCreated || rec.Header().Get("Location") != want || (rec.Header().Get(edge.ReplayedHeader) != "") != (i == 1) {
			t.Errorf("order %d: %d %v %s", i, rec.Code, rec.Header(), rec.Body)
		}
	}
	refused := 0
	for i := range 150 {
		if order("a", fmt.Sprintf("198.51.100.%d", i), "203.0.113.7").Code == http.StatusTooManyRequests {
			refused++
		}
	}
	if refused < 20 || order("a", "203.0.113.8").Code != http.StatusCreated {
		t.Errorf("%d of 150 are refused, and another too", refused)
	}
}
