// Command minimal-realtime is a wall that all its visitors see grow: the least that an application does to use packages realtime and
// realtime/fromevents. Open it in two windows.
//
//	export TOKEN_KEY=$(openssl rand -hex 16) PATH=$PWD/.bin:$PATH
//	loadline up -- sh -c "loadline migrate && exec go run ./examples/minimal-realtime"
package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/events/natsjs"
	"github.com/loadlinehq/loadline/outbox"
	"github.com/loadlinehq/loadline/realtime"
	"github.com/loadlinehq/loadline/realtime/fromevents"
)

//go:embed wall.html
var page []byte

// maxLine is in bytes: what is told is bounded, too.
const maxLine = 1000

type line struct {
	ID   int64  `json:"id"`
	Text string `json:"text"`
}

var lineWritten = events.Define("line.written", events.V1, events.KeyedBy(func(line) string { return "wall" })) // in order

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	replicas := strings.Fields(strings.ReplaceAll(os.Getenv("DATABASE_REPLICA_URLS"), ",", " "))
	router, err := db.Open(ctx, db.Config{Primary: os.Getenv("DATABASE_URL"), Replicas: replicas})
	check(err)
	_, err = router.Write(ctx).Exec(ctx, "CREATE TABLE IF NOT EXISTS line (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, text text NOT NULL)")
	check(err)
	driver, err := natsjs.Open(ctx, natsjs.Config{URL: os.Getenv("NATS_URL"), MaxBytes: 64 << 20, DeadLetterMaxBytes: 16 << 20})
	check(err)
	relay, err := outbox.NewRelay(outbox.RelayConfig{DSN: os.Getenv("DATABASE_URL"), Driver: driver, Source: "/wall"})
	check(err)
	keys, err := causal.NewKeys([]byte(os.Getenv("TOKEN_KEY")))
	check(err)
	gateway, err := realtime.Open(ctx, realtime.Config{
		Redis: []string{os.Getenv("REDIS_URL")}, Authenticate: realtime.Anonymous, Keys: keys, DrainDelay: -1, Drain: time.Second,
		Namespaces: map[string]realtime.Namespace{"wall": {Subscribe: realtime.Anyone, History: 100, HistoryAge: 5 * time.Minute}},
	})
	check(err)
	handler, consumer, err := wall(router, driver, gateway, keys)
	check(err)
	server := &http.Server{Addr: "127.0.0.1:" + os.Getenv("PORT"), Handler: handler}

	g, ctx := errgroup.WithContext(ctx)
	for _, run := range []func(context.Context) error{router.Run, driver.Run, relay.Run, consumer.Run, gateway.Run} {
		g.Go(func() error { return run(ctx) })
	}
	g.Go(func() error {
		if err := server.ListenAndServe(); err != http.ErrServerClosed {
			return err
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		return server.Shutdown(context.WithoutCancel(ctx)) // when the gateway has sent its clients away
	})
	check(g.Wait())
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// wall returns what serves the page, and what tells of its lines.
func wall(router *db.Router, driver events.Driver, gateway *realtime.Gateway, keys causal.Keys) (http.Handler, *events.Consumer, error) {
	sessions, err := causal.NewHTTP(causal.HTTPConfig{Keys: keys, AbsentMeansNew: true, InsecureCookie: true})
	if err != nil {
		return nil, nil, err
	}
	consumer, err := events.NewConsumer(driver, events.ConsumerConfig{Group: "realtime", StartAt: time.Now()})
	if err != nil {
		return nil, nil, err
	}
	fromevents.Handle(consumer, gateway, lineWritten, func(ctx context.Context, e events.Event[line]) ([]realtime.Publication, error) {
		return []realtime.Publication{{Channel: realtime.ChannelOf(ctx, "wall", "main"), Data: e.Payload}}, nil
	})
	api := http.NewServeMux()
	api.HandleFunc("POST /lines", func(w http.ResponseWriter, r *http.Request) {
		l := line{Text: r.FormValue("text")}
		if l.Text == "" || len(l.Text) > maxLine {
			http.Error(w, "a line has a text, and is no novel", http.StatusUnprocessableEntity)
			return
		}
		err := router.InTx(r.Context(), func(ctx context.Context, tx pgx.Tx) error {
			if err := tx.QueryRow(ctx, "INSERT INTO line (text) VALUES ($1) RETURNING id", l.Text).Scan(&l.ID); err != nil {
				return err
			}
			event, err := lineWritten.New(l)
			if err != nil {
				return err
			}
			return outbox.Add(ctx, tx, event)
		})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	api.HandleFunc("GET /lines", func(w http.ResponseWriter, r *http.Request) {
		rows, err := router.Read(r.Context()).Query(r.Context(), "SELECT id, text FROM (SELECT * FROM line ORDER BY id DESC LIMIT 50) l ORDER BY id")
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		lines, err := pgx.CollectRows(rows, pgx.RowToStructByPos[line])
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(w).Encode(lines) // the client has gone
	})
	mux := http.NewServeMux()
	mux.Handle("/lines", sessions.Handler(api))
	mux.Handle("/realtime/", http.StripPrefix("/realtime", gateway.Handler()))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(page) })
	return mux, consumer, nil
}
