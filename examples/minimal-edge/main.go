// Command minimal-edge takes orders, each once however often it is sent: the least that an application does to use
// packages edge, edge/pgstore, edge/ratelimit and edge/overload.
//
//	loadline up -- sh -c "loadline migrate && exec go run ./examples/minimal-edge"
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/edge"
	"github.com/loadlinehq/loadline/edge/overload"
	"github.com/loadlinehq/loadline/edge/pgstore"
	"github.com/loadlinehq/loadline/edge/ratelimit"
)

func main() {
	ctx := context.Background()
	router, err := db.Open(ctx, db.Config{Primary: os.Getenv("DATABASE_URL")})
	if err != nil {
		log.Fatal(err)
	}
	go router.Run(ctx)
	if _, err := router.Write(ctx).Exec(ctx, "CREATE TABLE IF NOT EXISTS purchase (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text NOT NULL)"); err != nil {
		log.Fatal(err)
	}
	handler, err := shop(router)
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{Addr: "127.0.0.1:" + os.Getenv("PORT"), Handler: handler}
	edge.ServerDefaults(server)
	log.Fatal(server.ListenAndServe())
}

func shop(router *db.Router) (http.Handler, error) {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /orders", func(w http.ResponseWriter, r *http.Request) {
		var id int64
		what := r.FormValue("what") // before the transaction: a body takes as long as its client likes
		// It joins the transaction of the answer's record, where the request has a key.
		err := router.InTx(r.Context(), func(ctx context.Context, tx pgx.Tx) error {
			return tx.QueryRow(ctx, "INSERT INTO purchase (what) VALUES ($1) RETURNING id", what).Scan(&id)
		})
		if err != nil {
			edge.Errors{}.Answer(w, r, err)
			return
		}
		w.Header().Set("Location", fmt.Sprint("/orders/", id))
		w.WriteHeader(http.StatusCreated)
	})

	store, err := pgstore.New(router, pgstore.Config{})
	if err != nil {
		return nil, err
	}
	go store.Run(context.Background())
	limiter, err := ratelimit.New(ratelimit.Config{}, ratelimit.Policy{Name: "address", Limit: 120, Window: time.Minute, Key: ratelimit.ByAddress})
	if err != nil {
		return nil, err
	}
	shed, err := overload.New(overload.Config{Ceiling: 32})
	if err != nil {
		return nil, err
	}
	chain, err := edge.Chain(edge.ChainConfig{
		Mux:            mux,
		Address:        edge.ClientAddressConfig{Trusted: []string{"127.0.0.1"}}, // the load balancer
		LimitByAddress: limiter.Handler,
		Shed:           shed.Handler,
		Idempotency:    &edge.IdempotencyConfig{Store: store, Principal: func(*http.Request) string { return "" }},
	})
	if err != nil {
		return nil, err
	}
	return chain(mux), nil
}
