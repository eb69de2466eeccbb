// Command minimal-outbox takes orders, and writes one mail for each, whatever dies in
// between: the least that an application does to use packages outbox, events and inbox.
//
//	loadline up -- sh -c "loadline migrate && exec go run ./examples/minimal-outbox"
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/events/natsjs"
	"github.com/loadlinehq/loadline/inbox"
	"github.com/loadlinehq/loadline/outbox"
)

type placed struct{ Order int64 }

var orderPlaced = events.Define[placed]("order.placed", events.V1)

// database opens transactions for the inbox.
type database struct{ *pgxpool.Pool }

func (d database) InTx(ctx context.Context, f func(context.Context, pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, d.Pool, func(tx pgx.Tx) error { return f(ctx, tx) })
}

func main() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	check(err)
	_, err = pool.Exec(ctx, "CREATE TABLE IF NOT EXISTS orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, item text); CREATE TABLE IF NOT EXISTS mails (text text)")
	check(err)
	driver, err := natsjs.Open(ctx, natsjs.Config{URL: os.Getenv("NATS_URL"), MaxBytes: 64 << 20, DeadLetterMaxBytes: 16 << 20})
	check(err)
	handler, run, err := shop(database{pool}, driver)
	check(err)
	go func() { check(driver.Run(ctx)) }() // makes room
	go func() { check(run(ctx)) }()
	check(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), handler))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// shop returns what serves orders, and what writes the mails.
func shop(db database, driver events.Driver) (http.Handler, func(context.Context) error, error) {
	relay, err1 := outbox.NewRelay(outbox.RelayConfig{Pool: db.Pool, Driver: driver, Source: "/shop"})
	in, err2 := inbox.New(inbox.Config{DB: db})
	consumer, err3 := events.NewConsumer(driver, events.ConsumerConfig{})
	for _, err := range []error{err1, err2, err3} {
		if err != nil {
			return nil, nil, err
		}
	}
	events.Handle(consumer, orderPlaced, inbox.Handle(in, func(ctx context.Context, tx pgx.Tx, e events.Event[placed]) error {
		_, err := tx.Exec(ctx, "INSERT INTO mails SELECT 'your ' || item FROM orders WHERE id = $1", e.Payload.Order)
		return err
	}))
	mux := http.NewServeMux()
	mux.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		err := db.InTx(r.Context(), func(ctx context.Context, tx pgx.Tx) error {
			var order placed
			if err := tx.QueryRow(ctx, "INSERT INTO orders (item) VALUES ($1) RETURNING id", r.FormValue("item")).Scan(&order.Order); err != nil {
				return err
			}
			event, err := orderPlaced.New(order)
			if err != nil {
				return err
			}
			return outbox.Add(ctx, tx, event)
		})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
		relay.Wake()
	})
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		var orders, mails int
		if err := db.QueryRow(r.Context(), "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM mails)").Scan(&orders, &mails); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
		fmt.Fprintf(w, "%d orders, %d mails\n", orders, mails)
	})
	run := func(ctx context.Context) error {
		go func() { check(relay.Run(ctx)) }()
		go func() { check(in.Run(ctx)) }()
		return consumer.Run(ctx)
	}
	return mux, run, nil
}
