package contract

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Target is the application under test.
type Target struct {
	// URLs are the base addresses of its instances, without the path of the
	// API: "http://127.0.0.1:8080". Requests go to them in turn.
	URLs []string
	// JWTSecret is the key the application signs its tokens with. Without it
	// the tests that sign tokens of their own (expired, of an unknown user)
	// are skipped.
	JWTSecret string
	// Untold keeps what the application gives its clients to show, the causal token, from all requests. Users still
	// must see what they have done. What others did may show a moment later: reads are repeated for as long, which
	// is logged.
	Untold bool
}

// neverSeen lists the documented answers that no client can provoke.
var neverSeen = map[string]string{
	"GET /user 422":                          "takes no input",
	"GET /tags 422":                          "takes no input",
	"GET /profiles/{username} 422":           "a name that cannot exist is not found: 404",
	"POST /profiles/{username}/follow 422":   "as above",
	"DELETE /profiles/{username}/follow 422": "as above",
	"POST /articles 409":                     "two articles may have the same title",
	"GET /articles/{slug} 422":               "a slug that cannot exist is not found: 404",
	"DELETE /articles/{slug} 422":            "as above",
	"GET /articles/{slug}/comments 422":      "as above",
	"POST /articles/{slug}/favorite 422":     "as above",
	"DELETE /articles/{slug}/favorite 422":   "as above",
}

// Run tests the application at target. It takes a few seconds; its subtests
// run in parallel.
func Run(t *testing.T, target Target) {
	s := newSuite(t, target)
	t.Cleanup(func() { s.tidy(t) })

	// Users cost a password hash each, so the tests share these where they can.
	registered := s.registerCrowd(t)
	s.ann, s.bob, s.crowd = registered[0], registered[1], registered[2:]

	t.Run("api", func(t *testing.T) {
		for _, group := range []struct {
			name string
			test func(t *testing.T)
		}{
			{"users", s.testUsers},
			{"tokens", s.testTokens},
			{"profiles", s.testProfiles},
			{"articles", s.testArticles},
			{"slugs", s.testSlugs},
			{"lists", s.testLists},
			{"comments", s.testComments},
			{"favorites", s.testFavorites},
			{"feed", s.testFeed},
			{"tags", s.testTags},
			{"input", s.testInput},
			{"http", s.testHTTP},
			{"sessions", s.testSessions},
			{"additions", s.testAdditions},
			{"concurrency", s.testConcurrency},
		} {
			t.Run(group.name, func(t *testing.T) {
				t.Parallel()
				group.test(t)
			})
		}
	})

	s.late.log(t)
	t.Run("coverage", func(t *testing.T) {
		if missing := s.spec.unseen(neverSeen); len(missing) > 0 {
			t.Errorf("documented in openapi.yml, but never seen:\n  %s", strings.Join(missing, "\n  "))
		}
		if missing := s.more.unseen(nil); len(missing) > 0 {
			t.Errorf("documented in additions.yml, but never seen:\n  %s", strings.Join(missing, "\n  "))
		}
	})
}

// suite is the state of one run.
type suite struct {
	target Target
	http   *http.Client
	spec   *spec
	more   *spec // of what Conduit has beside it
	turn   atomic.Uint64
	seen   seen
	late   late

	// run makes the names of this run unique, with serial.
	run    string
	serial atomic.Uint64

	anyone actor // has no token
	ann    actor
	bob    actor
	crowd  []actor

	mu        sync.Mutex
	published []call // deletes the articles of this run
}

func newSuite(t *testing.T, target Target) *suite {
	t.Helper()
	if len(target.URLs) == 0 {
		t.Fatal("contract: Target.URLs is empty")
	}
	spec, err := newSpec(openapi)
	if err != nil {
		t.Fatal(err)
	}
	more, err := newSpec(additions)
	if err != nil {
		t.Fatal(err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 64 // one for each request of the largest burst
	// A server ends connections on which nothing has come for its ReadHeaderTimeout, such as
	// those that a burst has dialled and not needed; a POST that meets the end is not sent again.
	transport.IdleConnTimeout = time.Second
	t.Cleanup(transport.CloseIdleConnections)

	s := &suite{
		target: target,
		http:   &http.Client{Transport: transport},
		spec:   spec,
		more:   more,
		run:    strings.ToLower(rand.Text()[:8]),
	}
	s.anyone = actor{suite: s}
	return s
}

// address returns the instance whose turn it is.
func (s *suite) address() string {
	return s.target.URLs[s.turn.Add(1)%uint64(len(s.target.URLs))]
}

// name returns a name that nothing else has, for users and tags.
func (s *suite) name(prefix string) string {
	return fmt.Sprintf("%s_%s_%d", prefix, s.run, s.serial.Add(1))
}

// title returns a title that nothing else has.
func (s *suite) title(prefix string) string {
	return fmt.Sprintf("%s %s %d", prefix, s.run, s.serial.Add(1))
}

// registerCrowd registers the users whom the tests share.
func (s *suite) registerCrowd(t *testing.T) []actor {
	names := make([]string, 12)
	for i := range names {
		names[i] = s.name("crowd")
	}
	answers := s.together(t, len(names), func(i int) call {
		return s.anyone.call(http.MethodPost, "/users", newUser(names[i]))
	})
	actors := make([]actor, len(names))
	for i, got := range answers {
		actors[i] = actor{user: got.user(t, http.StatusCreated), suite: s}
	}
	return actors
}

// remember has the article deleted at the end of the run.
func (s *suite) remember(author actor, slug string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.published = append(s.published, author.call(http.MethodDelete, at(slug), nil))
}

// tidy deletes the articles of this run, and their tags and comments with
// them, so that many runs leave only users behind.
func (s *suite) tidy(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	const workers = 4
	_, failures := collect(workers, func(worker int) (struct{}, error) {
		for i := worker; i < len(s.published); i += workers {
			if _, err := s.send(ctx, s.published[i]); err != nil {
				return struct{}{}, err
			}
		}
		return struct{}{}, nil
	})
	for _, err := range failures {
		if err != nil {
			t.Errorf("delete the articles of this run: %v", err)
		}
	}
}
