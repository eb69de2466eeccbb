// Command minimal-cache keeps a page for each path, and reads it from a cache that has seen what its reader has
// saved: the least that an application does to use packages cache, db and outbox.
//
//	export TOKEN_KEY=$(openssl rand -hex 16) PATH=$PWD/.bin:$PATH
//	loadline up -- sh -c "loadline migrate && exec go run ./examples/minimal-cache"
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/redis/rueidis"

	"github.com/loadlinehq/loadline/cache"
	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/outbox"
)

func main() {
	ctx := context.Background()
	replicas := strings.Fields(strings.ReplaceAll(os.Getenv("DATABASE_REPLICA_URLS"), ",", " "))
	router, err := db.Open(ctx, db.Config{Primary: os.Getenv("DATABASE_URL"), Replicas: replicas})
	check(err)
	_, err = router.Write(ctx).Exec(ctx, "CREATE TABLE IF NOT EXISTS page (path text PRIMARY KEY, body text NOT NULL)")
	check(err)
	redis, err := rueidis.ParseURL(os.Getenv("REDIS_URL"))
	check(err)
	store, err := cache.OpenStore(ctx, cache.StoreConfig{Redis: &redis})
	check(err)
	relay, err := outbox.NewRelay(outbox.RelayConfig{DSN: os.Getenv("DATABASE_URL"), Invalidator: store})
	check(err)
	handler, err := pages(router, store, []byte(os.Getenv("TOKEN_KEY")))
	check(err)
	for _, run := range []func(context.Context) error{router.Run, store.Run, relay.Run} {
		go func() { check(run(ctx)) }()
	}
	check(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), handler))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func pages(router *db.Router, store *cache.Store, key []byte) (http.Handler, error) {
	keys, err := causal.NewKeys(key)
	if err != nil {
		return nil, fmt.Errorf("TOKEN_KEY: %w", err)
	}
	sessions, err := causal.NewHTTP(causal.HTTPConfig{Keys: keys, AbsentMeansNew: true, InsecureCookie: true})
	if err != nil {
		return nil, err
	}
	bodies, err := cache.New(store, cache.Config[string, string]{Name: "page", Class: cache.Warm()})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		path := r.URL.Path
		err := router.InTx(r.Context(), func(ctx context.Context, tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "INSERT INTO page VALUES ($1, $2) ON CONFLICT (path) DO UPDATE SET body = excluded.body", path, r.FormValue("body")); err != nil {
				return err
			}
			return outbox.AddInvalidation(ctx, tx, bodies.Key(ctx, path).Record())
		})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		if err := store.Invalidate(r.Context(), bodies.Key(r.Context(), path)); err != nil {
			log.Print(err) // the relay does it
		}
	})
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		from := "cache"
		body, err := bodies.Get(r.Context(), r.URL.Path, func(ctx context.Context) (body string, err error) {
			from = "database"
			err = router.Read(ctx).QueryRow(ctx, "SELECT body FROM page WHERE path = $1", r.URL.Path).Scan(&body)
			if errors.Is(err, pgx.ErrNoRows) {
				err = cache.ErrNotFound
			}
			return body, err
		})
		switch {
		case errors.Is(err, cache.ErrNotFound):
			http.NotFound(w, r)
		case err != nil:
			http.Error(w, err.Error(), http.StatusInternalServerError)
		default:
			fmt.Fprintf(w, "%s (from the %s)\n", body, from)
		}
	})
	return sessions.Handler(mux), nil
}
