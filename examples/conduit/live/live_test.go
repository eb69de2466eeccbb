package live_test

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/events/natsjs"
	"github.com/loadlinehq/loadline/examples/conduit"
	"github.com/loadlinehq/loadline/examples/conduit/auth"
	"github.com/loadlinehq/loadline/examples/conduit/live"
	"github.com/loadlinehq/loadline/examples/conduit/mesh"
	"github.com/loadlinehq/loadline/examples/conduit/postgres"
	"github.com/loadlinehq/loadline/inbox"
	"github.com/loadlinehq/loadline/internal/stack"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
	"github.com/loadlinehq/loadline/outbox"
)

// TestMain is also the NATS server of the stack.
func TestMain(m *testing.M) {
	if stack.ServeNATS() {
		return
	}
	m.Run()
}

var (
	secret = strings.Repeat("s", auth.MinSecretBytes)
	quiet  = slog.New(slog.DiscardHandler)
)

// fixture is an application without its API.
type fixture struct {
	*postgres.Store
	set *stacktest.Set
	db  *postgres.Replicated
	url string
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	set := stacktest.New(t, stacktest.Migrated(postgres.Migrations, outbox.Migrations, inbox.Migrations))
	db, err := postgres.OpenReplicated(t.Context(), postgres.Config{URL: set.URL, MaxConns: 8}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	l := newLive(t, live.Config{Redis: set.RedisURL, Prefix: set.KeyPrefix + "rt"})
	m := newMesh(t, set, db, l)
	runs(t, db.Run)
	runs(t, m.Run)
	return &fixture{postgres.NewStore(m.Waking(db), m), set, db, serve(t, l)}
}

// newMesh is that of an instance, which tells by its gateway.
func newMesh(t *testing.T, set *stacktest.Set, db *postgres.Replicated, l *live.Live) *mesh.Mesh {
	t.Helper()
	m, err := mesh.New(mesh.Config{
		NATS: natsjs.Config{
			URL: set.NATSURL, Stream: set.StreamPrefix + "EVENTS", DeadLetters: set.StreamPrefix + "DLQ", Advisories: set.StreamPrefix + "ADVISORIES",
			SubjectPrefix: set.SubjectPrefix, MaxBytes: 64 << 20, DeadLetterMaxBytes: 16 << 20, Logger: quiet,
		},
		DB: db.Router(), RelayDSN: set.URL, Log: quiet,
		Tell: func(ctx context.Context, c *events.Consumer) error {
			live.Handle(c, l, postgres.NewStore(db, postgres.Immediately{}))
			return l.While(ctx, c.Run)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func newLive(t *testing.T, c live.Config) *live.Live {
	t.Helper()
	c.Secret, c.Drain, c.Log = secret, cmp.Or(c.Drain, time.Millisecond), quiet
	l, err := live.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// serve runs it until the test ends, and returns where.
func serve(t *testing.T, l *live.Live) string {
	t.Helper()
	runs(t, l.Run)
	server := httptest.NewServer(l.Handler())
	t.Cleanup(server.Close)
	return server.URL
}

func runs(t *testing.T, run func(context.Context) error) {
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { stop(); running.Wait() })
}

// ear listens to a channel by polls.
type ear struct {
	url, token, channel string

	place struct {
		Epoch  string `json:"epoch"`
		Offset uint64 `json:"offset"`
	}
}

type heard struct {
	Data   json.RawMessage
	Offset uint64
}

// poll returns what was published, or that the channel is denied.
func (e *ear) poll(t *testing.T, wait float64) (all []heard, denied bool) {
	t.Helper()
	body, err := json.Marshal(map[string]any{"token": e.token, "channels": map[string]any{e.channel: e.place}, "wait": wait})
	if err != nil {
		t.Fatal(err)
	}
	for limit := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		response, err := http.Post(e.url+"/poll", "application/json", strings.NewReader(string(body)))
		if err != nil {
			t.Fatal(err)
		}
		var answer struct {
			Channels map[string]struct {
				Epoch        string
				Offset       uint64
				Publications []heard
			}
			Denied []string
		}
		err = json.NewDecoder(response.Body).Decode(&answer)
		_ = response.Body.Close()
		if response.StatusCode == http.StatusServiceUnavailable && time.Now().Before(limit) {
			continue // it is not there yet
		}
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("%s %v", response.Status, err)
		}
		got, ok := answer.Channels[e.channel]
		if ok {
			e.place.Epoch, e.place.Offset = got.Epoch, got.Offset
		}
		return got.Publications, slices.Contains(answer.Denied, e.channel)
	}
}

func listen(t *testing.T, url, token, channel string) *ear {
	t.Helper()
	e := &ear{url: url, token: token, channel: channel}
	if _, denied := e.poll(t, 0.001); denied {
		t.Fatalf("%s is denied", channel)
	}
	return e
}

// next is the next publication.
func (e *ear) next(t *testing.T) string {
	t.Helper()
	for limit := time.Now().Add(20 * time.Second); time.Now().Before(limit); {
		if all, _ := e.poll(t, 5); len(all) == 1 {
			return string(all[0].Data)
		} else if len(all) > 1 {
			t.Fatalf("%s: %d at once", e.channel, len(all))
		}
	}
	t.Fatalf("%s: nothing is heard", e.channel)
	return ""
}

// user registers one and returns his id and token.
func (f *fixture) user(t *testing.T, name string) (int64, string) {
	t.Helper()
	user, err := f.CreateUser(t.Context(), conduit.Registration{Username: name, Email: name + "@example.com"}, "hash")
	if err != nil {
		t.Fatal(err)
	}
	return user.ID, token(t, user.ID)
}

func token(t *testing.T, id int64) string {
	t.Helper()
	tokens, err := auth.NewTokens(secret)
	if err != nil {
		t.Fatal(err)
	}
	text, err := tokens.Issue(id)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Who looks at an article hears of its comments as they are written and deleted; its author hears that he has a notification when it is there; and all
// of many followers do.
func TestTold(t *testing.T) {
	t.Parallel()
	f, ctx := newFixture(t), t.Context()
	jake, hisToken := f.user(t, "jake")
	jane, herToken := f.user(t, "jane")
	article, err := f.CreateArticle(ctx, jake, conduit.Draft{Title: "News", Description: "d", Body: "b"})
	if err != nil {
		t.Fatal(err)
	}
	reader := listen(t, f.url, "", live.ArticleChannel(article.ID))
	bell := listen(t, f.url, hisToken, live.UserChannel(jake))

	short, err := f.CreateComment(ctx, jane, article.Slug, "Well <b>")
	if err != nil {
		t.Fatal(err)
	}
	if got := bell.next(t); got != `{"notified":"comment"}` {
		t.Errorf("the author hears %s", got)
	}
	if n, err := f.Notifications(ctx, jake, 0, 10); err != nil || n.Unread != 1 || n.List[0].CommentID != short.ID {
		t.Errorf("the author has heard of a notification, and has %+v, %v", n, err)
	}
	var got live.OfArticle
	if err := json.Unmarshal([]byte(reader.next(t)), &got); err != nil {
		t.Fatal(err)
	}
	want := live.OfArticle{Comment: &live.Comment{ID: short.ID, CreatedAt: short.CreatedAt.UTC(), UpdatedAt: short.UpdatedAt.UTC(), Body: "Well <b>", Author: live.Author{Username: "jane"}}}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}

	long, err := f.CreateComment(ctx, jake, article.Slug, strings.Repeat("a", live.MaxCommentBytes+1))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := reader.next(t), fmt.Sprintf(`{"changed":%d}`, long.ID); got != want {
		t.Errorf("of a long comment is told %s, want %s", got, want)
	}
	if err := f.DeleteComment(ctx, jane, article.Slug, short.ID); err != nil {
		t.Fatal(err)
	}
	if got, want := reader.next(t), fmt.Sprintf(`{"deleted":%d}`, short.ID); got != want {
		t.Errorf("of a deleted comment is told %s, want %s", got, want)
	}

	// More followers than one event names.
	if _, err := f.db.Write(ctx).Exec(ctx, `WITH fans AS (
			INSERT INTO users (username, email, password_hash) SELECT 'fan' || n, 'fan' || n || '@example.com', 'hash' FROM generate_series(1, 1100) AS n RETURNING id
		)
		INSERT INTO follows (follower_id, followee_id) SELECT id, $1 FROM fans`, jake); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Follow(ctx, jane, "jake"); err != nil {
		t.Fatal(err)
	}
	hers := listen(t, f.url, herToken, live.UserChannel(jane))
	var fans []*ear
	for _, name := range []string{"fan1", "fan600", "fan1100"} {
		fan, err := f.UserByEmail(ctx, name+"@example.com")
		if err != nil {
			t.Fatal(err)
		}
		fans = append(fans, listen(t, f.url, token(t, fan.ID), live.UserChannel(fan.ID)))
	}
	if _, err := f.CreateArticle(ctx, jake, conduit.Draft{Title: "More", Description: "d", Body: "b"}); err != nil {
		t.Fatal(err)
	}
	for _, e := range append(fans, hers) {
		if got := e.next(t); got != `{"notified":"article"}` {
			t.Errorf("%s: a follower hears %s", e.channel, got)
		}
	}
	// The author, who is no follower of his own, hears of a favourite next.
	if _, err := f.Favorite(ctx, jane, article.Slug); err != nil {
		t.Fatal(err)
	}
	if got := bell.next(t); got != `{"notified":"favorite"}` {
		t.Errorf("the author hears %s", got)
	}
}

// Nobody listens to what is for another user, and not to what can be no article.
func TestDenied(t *testing.T) {
	t.Parallel()
	url := serve(t, newLive(t, live.Config{}))
	for _, test := range []struct {
		token, channel string
		denied         bool
	}{
		{token(t, 1), "user:1", false},
		{token(t, 2), "user:1", true},
		{"", "user:1", true},
		{"", "user:", true},
		{"", "article:1", false},
		{token(t, 2), "article:1", false},
		{"", "article:0", true},
		{"", "article:01", true},
		{"", "article:how-to", true},
		{"", "other:1", true},
	} {
		e := &ear{url: url, token: test.token, channel: test.channel}
		if _, denied := e.poll(t, 0.001); denied != test.denied {
			t.Errorf("%s with token %.8q is denied: %t, want %t", test.channel, test.token, denied, test.denied)
		}
	}
}

// An instance that starts while Redis is away serves the rest, and browsers when it is there.
func TestRedisComesLater(t *testing.T) {
	t.Parallel()
	redis := stacktest.StartRedis(t)
	redis.Kill()
	l := newLive(t, live.Config{Redis: "redis://" + redis.Address})
	url := serve(t, l)
	response, err := http.Get(url + "/realtime.js")
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") == "" {
		t.Errorf("without Redis: %s, %v", response.Status, response.Header)
	}
	if err := l.Disconnect(t.Context(), "1"); err == nil {
		t.Error("without a gateway somebody is disconnected")
	}
	redis.Start()
	listen(t, url, "", "article:1")
}

// Who is connected is sent away when an instance is asked to end, and does not keep its server from ending.
func TestDrain(t *testing.T) {
	t.Parallel()
	l := newLive(t, live.Config{})
	server := httptest.NewServer(l.Handler())
	t.Cleanup(server.Close)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	listen(t, server.URL, "", "article:1") // it is there
	response, err := http.Post(server.URL+"/stream", "application/json", strings.NewReader(`{"id":1,"connect":{}}`))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	if !lines.Scan() || !strings.Contains(lines.Text(), "connect") {
		t.Fatalf("connected: %q %v", lines.Text(), lines.Err())
	}
	began := time.Now()
	stop()
	closing, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := server.Config.Shutdown(closing); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if !lines.Scan() || !strings.Contains(lines.Text(), "disconnect") {
		t.Errorf("sent away: %q %v", lines.Text(), lines.Err())
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it takes %v", took)
	}
}

// While one of two instances sends its clients away, and while another has not reached Redis, what happens is told without delay.
func TestToldWithoutDelay(t *testing.T) {
	t.Parallel()
	f, ctx := newFixture(t), t.Context()
	jake, _ := f.user(t, "jake")
	run := func(l *live.Live) (url string, stop func()) {
		runs(t, newMesh(t, f.set, f.db, l).Run)
		server := httptest.NewServer(l.Handler())
		t.Cleanup(server.Close)
		ctx, leave := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- l.Run(ctx) }()
		t.Cleanup(func() {
			leave()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
		return server.URL, leave
	}
	run(newLive(t, live.Config{Redis: "redis://127.0.0.1:1"}))
	leaving, leave := run(newLive(t, live.Config{Redis: f.set.RedisURL, Prefix: f.set.KeyPrefix + "rt", Drain: 4 * time.Second}))
	listen(t, leaving, "", "article:1") // it is there
	for range 2 {                       // the second of whom is sent away after two seconds
		response, err := http.Post(leaving+"/stream", "application/json", strings.NewReader(`{"id":1,"connect":{}}`))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = response.Body.Close() })
		if lines := bufio.NewScanner(response.Body); !lines.Scan() {
			t.Fatal(lines.Err())
		}
	}

	// Of as many articles as there are partitions, so that each member has some.
	tell := func(when string) {
		for n := range 16 {
			article, err := f.CreateArticle(ctx, jake, conduit.Draft{Title: fmt.Sprintf("%s %d", when, n), Description: "d", Body: "b"})
			if err != nil {
				t.Fatal(err)
			}
			reader := listen(t, f.url, "", live.ArticleChannel(article.ID))
			began := time.Now()
			if _, err := f.CreateComment(ctx, jake, article.Slug, "Well"); err != nil {
				t.Fatal(err)
			}
			reader.next(t)
			if took := time.Since(began); took > 4*time.Second {
				t.Errorf("%s, of article %d it takes %v", when, n, took)
			}
		}
	}
	tell("before")
	leave()
	tell("meanwhile")
}
