package natsjs_test

import (
	"context"
	"fmt"
	"log"

	"golang.org/x/sync/errgroup"

	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/events/natsjs"
)

type published struct {
	Slug string `json:"slug"`
}

func Example() {
	ctx, stop := context.WithCancel(context.Background()) // signal.NotifyContext
	defer stop()

	driver, err := natsjs.Open(ctx, natsjs.Config{URL: "nats://127.0.0.1:4222"})
	if err != nil {
		log.Fatal(err)
	}
	defer driver.Close()

	articlePublished := events.Define[published]("article.published", events.V1)
	consumer, err := events.NewConsumer(driver, events.ConsumerConfig{Group: "search"})
	if err != nil {
		log.Fatal(err)
	}
	events.Handle(consumer, articlePublished, func(_ context.Context, e events.Event[published]) error {
		fmt.Println("index", e.Payload.Slug)
		return nil
	})

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return driver.Run(ctx) }) // makes room, and measures
	g.Go(func() error { return consumer.Run(ctx) })
	if err := g.Wait(); err != nil {
		log.Print(err)
	}
}
