package outbox_test

import (
	"context"
	"fmt"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/outbox"
)

// Published is the payload; services that write and read it share it.
type Published struct {
	Slug string `json:"slug"`
}

var ArticlePublished = events.Define("article.published", events.V1, events.KeyedBy(func(p Published) string { return p.Slug }))

func Example() {
	if os.Getenv("DATABASE_URL") == "" {
		return // with the tables of outbox.Migrations in it
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()
	box, err := outbox.New(outbox.Config{MaxBufferBytes: 4 << 30})
	if err != nil {
		fmt.Println(err)
		return
	}
	relay, err := outbox.NewRelay(outbox.RelayConfig{Pool: pool, Driver: &broker{} /* natsjs.Open, say */, Source: "/articles"})
	if err != nil {
		fmt.Println(err)
		return
	}
	var background errgroup.Group
	background.Go(func() error { return relay.Run(ctx) })
	defer func() { stop(); _ = background.Wait() }()

	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "UPDATE article SET published = now() WHERE slug = $1", "on-load-lines"); err != nil {
			return err
		}
		event, err := ArticlePublished.New(Published{Slug: "on-load-lines"})
		if err != nil {
			return err
		}
		return box.Add(ctx, tx, event)
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	relay.Wake()
}
