package cache_test

import (
	"context"
	"fmt"

	"github.com/loadlinehq/loadline/cache"
)

type Article struct {
	Title string `json:"title"`
}

// A cache in one process. With StoreConfig.Redis, and [cache.Store.Run] going on, it is that of all.
func Example() {
	ctx := context.Background()
	store, err := cache.OpenStore(ctx, cache.StoreConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()
	articles, err := cache.New(store, cache.Config[string, Article]{Name: "article", Class: cache.Warm()})
	if err != nil {
		fmt.Println(err)
		return
	}
	titles := map[string]string{"a": "On load lines"} // the database
	load := func(context.Context) (Article, error) {
		fmt.Println("loading")
		return Article{titles["a"]}, nil
	}
	for range 2 {
		a, err := articles.Get(ctx, "a", load)
		fmt.Println(a.Title, err)
	}
	titles["a"] = "On lead lines"
	if err := articles.Invalidate(ctx, "a"); err != nil {
		fmt.Println(err)
	}
	a, err := articles.Get(ctx, "a", load)
	fmt.Println(a.Title, err)
	// Output:
	// loading
	// On load lines <nil>
	// On load lines <nil>
	// loading
	// On lead lines <nil>
}
