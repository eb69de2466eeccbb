// Command minimal-db keeps notes, and reads them from replicas that have seen them: the
// least that an application does to use packages db and causal.
//
//	export TOKEN_KEY=$(openssl rand -hex 16)
//	loadline up -- go run ./examples/minimal-db
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"strings"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/db"
)

func main() {
	ctx := context.Background()
	router, err := db.Open(ctx, db.Config{Primary: os.Getenv("DATABASE_URL"), Replicas: strings.Fields(strings.ReplaceAll(os.Getenv("DATABASE_REPLICA_URLS"), ",", " "))})
	if err != nil {
		log.Fatal(err)
	}
	go router.Run(ctx)
	if _, err := router.Write(ctx).Exec(ctx, "CREATE TABLE IF NOT EXISTS note (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, text text NOT NULL)"); err != nil {
		log.Fatal(err)
	}
	handler, err := notes(router, []byte(os.Getenv("TOKEN_KEY")))
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), handler))
}

func notes(router *db.Router, key []byte) (http.Handler, error) {
	keys, err := causal.NewKeys(key)
	if err != nil {
		return nil, fmt.Errorf("TOKEN_KEY: %w", err)
	}
	sessions, err := causal.NewHTTP(causal.HTTPConfig{Keys: keys, AbsentMeansNew: true, InsecureCookie: true})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		if _, err := router.Write(r.Context()).Exec(r.Context(), "INSERT INTO note (text) VALUES ($1)", r.FormValue("text")); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		var text string
		var replica bool
		err := router.Read(r.Context()).QueryRow(r.Context(), "SELECT coalesce((SELECT text FROM note ORDER BY id DESC LIMIT 1), ''), pg_is_in_recovery()").Scan(&text, &replica)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintf(w, "%s (from a replica: %t)\n", text, replica)
	})
	return sessions.Handler(mux), nil
}
