package redisrecent_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/loadlinehq/loadline/inbox"
	"github.com/loadlinehq/loadline/inbox/redisrecent"
	"github.com/loadlinehq/loadline/internal/stack/faultproxy"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

var _ inbox.Recent = (*redisrecent.Recent)(nil)

func TestRecent(t *testing.T) {
	t.Parallel()
	set := stacktest.New(t)
	url, proxy := stacktest.Proxied(t, set.RedisURL)
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{url[len("redis://"):]}, DisableCache: true, ForceSingleClient: true})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	const ttl = 300 * time.Millisecond
	r, err := redisrecent.New(client, redisrecent.Config{Prefix: set.KeyPrefix, TTL: ttl})
	if err != nil {
		t.Fatal(err)
	}
	get := func() []string {
		t.Helper()
		values, err := r.Get(t.Context(), []string{"g:1", "g:2", "g:3"})
		if err != nil {
			t.Fatal(err)
		}
		return values
	}
	if got := get(); !slices.Equal(got, []string{"", "", ""}) {
		t.Errorf("at the beginning there is %q", got)
	}
	began := time.Now()
	if err := r.Put(t.Context(), []string{"g:1", "g:3"}, "7"); err != nil {
		t.Fatal(err)
	}
	if got := get(); !slices.Equal(got, []string{"7", "", "7"}) && time.Since(began) < ttl {
		t.Errorf("there is %q", got)
	}
	for limit := time.Now().Add(10 * time.Second); !slices.Equal(get(), []string{"", "", ""}); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("it is kept for ever")
		}
	}

	if err := proxy.Add("stall", faultproxy.Fault{Kind: faultproxy.Stall}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := r.Get(ctx, []string{"g:1"}); err == nil {
		t.Error("a Redis that hangs has answered")
	}
	if err := r.Put(ctx, []string{"g:1"}, "7"); err == nil {
		t.Error("a Redis that hangs has answered")
	}
	if _, err := redisrecent.New(client, redisrecent.Config{TTL: time.Microsecond}); err == nil {
		t.Error("a TTL that Redis cannot have is taken")
	}
}
