package contract_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/internal/load"
)

// loadRate is low: it is there to have connections in every state, and not to measure.
const loadRate = 40

// startLoad lets users arrive who read, and now and then publish, as the cast does that also
// comments and favourites, until it is stopped. It is under way on return: a few faults are over
// sooner than load begins.
func startLoad(t *testing.T, url string, cast *cast) (stop func() *load.Report) {
	t.Helper()
	type result struct {
		report *load.Report
		err    error
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan result, 1)
	go func() {
		report, err := load.Run(ctx, load.Config{
			Target: url, Users: 20, Timeout: 2 * time.Second, WarmPath: "/api/tags",
			Journeys: []load.Weighted{{Name: "read", Weight: 4, Run: readArticles}, {Name: "write", Run: publish}, {Name: "tell", Weight: 2, Run: cast.act}},
			Steps:    []load.Step{{Rate: loadRate, Duration: 20 * time.Minute}},
		})
		ended <- result{report, err}
	}()
	t.Cleanup(cancel)
	stop = func() *load.Report {
		t.Helper()
		cancel()
		got := <-ended
		if got.err != nil {
			t.Fatal(got.err)
		}
		return got.report
	}
	for limit := time.Now().Add(time.Minute); cast.published() == 0; time.Sleep(10 * time.Millisecond) {
		if len(ended) > 0 || time.Now().After(limit) {
			t.Fatalf("nobody publishes: %+v", stop())
		}
	}
	return stop
}

func ask(ctx context.Context, u *load.User, route, path, token, body string, into any) error {
	method, _, _ := strings.Cut(route, " ")
	request, err := u.NewRequest(ctx, method, path, strings.NewReader(body))
	if err != nil {
		return err
	}
	if token != "" {
		request.Header.Set("Authorization", "Token "+token)
	}
	response, err := u.Do(route, request)
	if err != nil {
		return err
	}
	if response.StatusCode >= http.StatusBadRequest {
		return errors.New(response.Status)
	}
	return json.NewDecoder(response.Body).Decode(into)
}

func readArticles(ctx context.Context, u *load.User) error {
	var list struct{ Articles []struct{ Slug string } }
	if err := ask(ctx, u, "GET /api/articles", "/api/articles?limit=5", "", "", &list); err != nil || len(list.Articles) == 0 {
		return err
	}
	slug := list.Articles[u.Rand.IntN(len(list.Articles))].Slug
	return ask(ctx, u, "GET /api/articles/{slug}/comments", "/api/articles/"+slug+"/comments", "", "", &struct{}{})
}

// session is a user's, from one visit to the next.
type session struct {
	mu    sync.Mutex
	token string
}

// publish registers the user once: a password's hash costs more than all the rest.
func publish(ctx context.Context, u *load.User) error {
	session := load.State(u, func() *session { return &session{} })
	session.mu.Lock()
	defer session.mu.Unlock()
	if session.token == "" {
		name := "load" + strconv.FormatUint(u.Rand.Uint64(), 36)
		var answer struct{ User struct{ Token string } }
		err := ask(ctx, u, "POST /api/users", "/api/users", "", `{"user":{"username":"`+name+`","email":"`+name+`@example.com","password":"correct horse"}}`, &answer)
		if err != nil {
			return err
		}
		session.token = answer.User.Token
	}
	return ask(ctx, u, "POST /api/articles", "/api/articles", session.token, `{"article":{"title":"Under load","description":"d","body":"b","tagList":["load"]}}`, &struct{}{})
}
