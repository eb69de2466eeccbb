// Package cache keeps what is read often in two tiers, this process and Redis, and never gives what was
// invalidated to who must have seen the change.
//
// A cache in front of a database with replicas goes wrong in the gaps: a reader that loads from a replica which
// is behind, and stores the old row after the writer has deleted the key; a process that has not heard yet; a
// message that was lost; a Redis that has failed over to a replica which lacks the last invalidation. The cure is
// that of a model-checked protocol (docs/cache.md): each key's record in Redis has a fence, a position in the
// database's log that whoever fills it must have read at, and a lease, which an invalidation takes away;
// invalidations are numbered, so that a process knows what it has not heard; and a session, by its token of package
// causal, is given what is cached only where all that it must see has been heard.
//
//	store, err := cache.OpenStore(ctx, cache.StoreConfig{Redis: &rueidis.ClientOption{InitAddress: []string{"127.0.0.1:6379"}}})
//	g.Go(func() error { return store.Run(ctx) })
//	articles, err := cache.New(store, cache.Config[string, Article]{Name: "article", Class: cache.Warm()})
//
//	a, err := articles.Get(ctx, slug, func(ctx context.Context) (a Article, err error) {
//		return queryArticle(ctx, router.Read(ctx), slug) // ctx makes the router read far enough
//	})
//
// Who writes adds the key's record to the outbox in the same transaction, and invalidates after the commit, which
// is only for speed: the outbox's relay, whose Invalidator a [Store] is, does so whatever becomes of the writer.
//
//	err := router.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
//		…
//		return outbox.AddInvalidation(ctx, tx, articles.Key(ctx, slug).Record())
//	})
//	err = store.Invalidate(ctx, articles.Key(ctx, slug)) // all that the write has changed
//
// Loads are coalesced, in a process and in the fleet; values are loaded anew before they end, and given past
// their end when loading fails. While Redis, or the relay, is away nothing is cached, and StoreConfig.MaxLoads bounds
// what the database gets.
//
// It does not see writes that tell nobody: those end with the value's time. Readers without a token may be given
// what was invalidated within the time that an announcement takes. Values are shared by their readers, who must
// not change them; see Config.Clone. A store's caches are of one database cluster.
package cache
