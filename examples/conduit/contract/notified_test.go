package contract_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/inbox"
	"github.com/loadlinehq/loadline/internal/load"
)

// cast are authors, of whom each of the cast follows each, and fans. They write under load, and in the end
// what is in the database says who should have been told of what.
type cast struct {
	names, tokens []string // the authors come first
	mu            sync.Mutex
	slugs         []string // that were published, as far as is known
}

const (
	authors = 3
	fans    = 4
)

// newCast registers them. Nobody of them follows another later, or takes back what he has done.
func newCast(t *testing.T, url string) *cast {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	post := func(path, token, body string, into any) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Token "+token)
		if token == "" {
			request.Header.Del("Authorization")
		}
		request.Header.Set("Content-Type", "application/json")
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if response.StatusCode >= http.StatusBadRequest {
			t.Fatalf("POST %s: %s", path, response.Status)
		}
		if err := json.NewDecoder(response.Body).Decode(into); err != nil {
			t.Fatal(err)
		}
	}
	c := &cast{}
	for i := range authors + fans {
		name := fmt.Sprintf("cast-%d", i)
		var answer struct{ User struct{ Token string } }
		post("/api/users", "", fmt.Sprintf(`{"user":{"username":%q,"email":"%[1]s@example.com","password":"correct horse"}}`, name), &answer)
		c.names, c.tokens = append(c.names, name), append(c.tokens, answer.User.Token)
	}
	for _, token := range c.tokens {
		for _, author := range c.names[:authors] {
			post("/api/profiles/"+author+"/follow", token, "", &struct{}{})
		}
	}
	return c
}

// act is a journey: an author publishes, or any of the cast comments on an article, or favourites it.
func (c *cast) act(ctx context.Context, u *load.User) error {
	c.mu.Lock()
	slug := ""
	if len(c.slugs) > 0 {
		slug = c.slugs[u.Rand.IntN(len(c.slugs))]
	}
	c.mu.Unlock()
	anyone := c.tokens[u.Rand.IntN(len(c.tokens))]
	switch what := u.Rand.IntN(4); {
	case what == 0 || slug == "":
		var answer struct{ Article struct{ Slug string } }
		err := ask(ctx, u, "POST /api/articles", "/api/articles", c.tokens[u.Rand.IntN(authors)], `{"article":{"title":"News","description":"d","body":"b"}}`, &answer)
		if err == nil {
			c.mu.Lock()
			c.slugs = append(c.slugs, answer.Article.Slug)
			c.mu.Unlock()
		}
		return err
	case what == 1:
		return ask(ctx, u, "POST /api/articles/{slug}/favorite", "/api/articles/"+slug+"/favorite", anyone, "", &struct{}{})
	default:
		return ask(ctx, u, "POST /api/articles/{slug}/comments", "/api/articles/"+slug+"/comments", anyone, `{"comment":{"body":"Well"}}`, &struct{}{})
	}
}

func (c *cast) published() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.slugs)
}

// notifiedSQL compares, row by row, who should have been told of what with who was, where the authors
// are those of $1: followers of articles, and authors of comments and favourites, but nobody of his own.
const notifiedSQL = `
WITH theirs AS (
	SELECT a.id, a.author_id FROM articles AS a JOIN users AS u ON u.id = a.author_id WHERE u.username = ANY ($1)
), due AS (
	SELECT f.follower_id AS user_id, 'article' AS kind, a.author_id AS actor_id, a.id AS article_id, NULL::bigint AS comment_id
	FROM theirs AS a JOIN follows AS f ON f.followee_id = a.author_id WHERE f.follower_id <> a.author_id
	UNION ALL
	SELECT a.author_id, 'comment', c.author_id, a.id, c.id
	FROM theirs AS a JOIN comments AS c ON c.article_id = a.id WHERE c.author_id <> a.author_id
	UNION ALL
	SELECT a.author_id, 'favorite', f.user_id, a.id, NULL
	FROM theirs AS a JOIN favorites AS f ON f.article_id = a.id WHERE f.user_id <> a.author_id
), told AS (
	SELECT user_id, kind, actor_id, article_id, comment_id FROM notifications WHERE article_id IN (SELECT id FROM theirs)
), missing AS (
	SELECT * FROM due EXCEPT ALL SELECT * FROM told
), extra AS (
	SELECT * FROM told EXCEPT ALL SELECT * FROM due
)
SELECT kind, count(*), (SELECT count(*) FROM missing AS m WHERE m.kind = due.kind), (SELECT count(*) FROM extra AS e WHERE e.kind = due.kind)
FROM due GROUP BY kind`

// mustBeTold waits until each has been told of what the database says, and of nothing twice. With
// settle it waits for that long after the faults, for what should not come: groups are rewound a second time then.
func (c *cast) mustBeTold(t *testing.T, url string, faults time.Time, settle bool) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	if settle {
		time.Sleep(time.Until(faults.Add(inbox.DefaultSettle + 5*time.Second)))
	}
	type tally struct {
		Kind                string
		Due, Missing, Extra int
	}
	var all []tally
	for limit := time.Now().Add(2 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		rows, err := conn.Query(t.Context(), notifiedSQL, c.names[:authors])
		if err != nil {
			t.Fatal(err)
		}
		if all, err = pgx.CollectRows(rows, pgx.RowToStructByPos[tally]); err != nil {
			t.Fatal(err)
		}
		missing := 0
		for _, kind := range all {
			missing += kind.Missing
		}
		if missing == 0 || time.Now().After(limit) {
			break
		}
	}
	t.Logf("notifications, %s after the faults: %+v", time.Since(faults).Round(time.Second), all)
	if settle && len(all) != 3 || len(all) == 0 {
		t.Errorf("there are no notifications due of some kind: only %+v", all)
	}
	for _, kind := range all {
		if kind.Missing > 0 || kind.Extra > 0 {
			t.Errorf("of %d notifications of kind %q that are due, %d are missing, and %d are too many", kind.Due, kind.Kind, kind.Missing, kind.Extra)
		}
	}
}
