package db_test

import (
	"context"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/db"
)

func Example() {
	if os.Getenv("DATABASE_URL") == "" {
		return // the example's servers, such as `loadline up` names them
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	router, err := db.Open(ctx, db.Config{
		Primary:  os.Getenv("DATABASE_URL"),
		Replicas: strings.Split(os.Getenv("DATABASE_REPLICA_URLS"), ","),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer router.Close()
	var background errgroup.Group
	background.Go(func() error { return router.Run(ctx) })
	defer func() { stop(); _ = background.Wait() }()

	// One session per client; causal carries it from request to request.
	ctx = causal.WithSession(ctx, causal.NewSession(causal.Token{}))
	if _, err := router.Write(ctx).Exec(ctx, "INSERT INTO note (text) VALUES ($1)", "seen"); err != nil {
		fmt.Println(err)
		return
	}
	var text string
	err = router.Read(ctx).QueryRow(ctx, "SELECT text FROM note ORDER BY id DESC LIMIT 1").Scan(&text)
	fmt.Println(text, err)
}
