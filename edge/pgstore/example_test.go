package pgstore_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/edge"
	"github.com/loadlinehq/loadline/edge/pgstore"
)

func Example() {
	ctx := context.Background()
	router, err := db.Open(ctx, db.Config{Primary: "postgres://app@db-1/app", Replicas: []string{"postgres://app@db-2/app"}})
	if err != nil {
		log.Fatal(err)
	}
	defer router.Close()
	store, err := pgstore.New(router, pgstore.Config{})
	if err != nil {
		log.Fatal(err)
	}
	go func() { _ = store.Run(ctx) }() // deletes what has expired

	idempotent, err := edge.Idempotency(edge.IdempotencyConfig{
		Store:     store,
		Principal: func(r *http.Request) string { return "who was authenticated" },
	})
	if err != nil {
		log.Fatal(err)
	}
	handler := idempotent(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// It joins the transaction of the answer's record.
		err := router.InTx(r.Context(), func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "insert into orders (what) values ('tea')")
			return err
		})
		if err != nil {
			edge.Errors{}.Answer(w, r, err)
			return
		}
		w.WriteHeader(http.StatusCreated)
	}))
	for range 2 {
		r := httptest.NewRequest(http.MethodPost, "/orders", strings.NewReader("tea"))
		r.Header.Set("Idempotency-Key", `"8e03978e-40d5-43e8-bc93-6894a57f9324"`)
		rec := httptest.NewRecorder()
		handler.ServeHTTP(rec, r) // the second time, what the first one was answered
		fmt.Println(rec.Code, rec.Header().Get(edge.ReplayedHeader))
	}
}
