package contract

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// What clients that are told nothing may have to wait for.
const (
	// patience is for what is cached: an announcement takes milliseconds, and up to 3 s where a process is cut off.
	patience = time.Second
	// feedPatience is for feeds, which replicas answer that have seen what the reader did, and may be behind
	// the authors: by the lag, and what it takes to be found out.
	feedPatience = 8 * time.Second
)

// readUntold reads like a client that keeps no token, and, after it, like one who has been told of all that has happened.
// While the answers differ it goes on: the first has been given the past, or there was a write in between, which
// looks the same.
func (s *suite) readUntold(ctx context.Context, c call) (*answer, error) {
	told := c
	c.forgetful = true
	limit := patience
	if strings.HasPrefix(c.target, "/articles/feed") {
		limit = feedPatience
	}
	began := time.Now()
	for tries := 1; ; tries++ {
		after := time.Since(began)
		got, err := s.request(ctx, c)
		if err != nil {
			return nil, err
		}
		want, err := s.request(ctx, told)
		if err != nil {
			return nil, err
		}
		same := got.status == want.status && bytes.Equal(got.body, want.body)
		if same || after > limit {
			s.late.note(c.target, tries, after, same)
			return got, nil
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// late is how late reads were.
type late struct {
	mu     sync.Mutex
	routes map[string]*lateness
}

type lateness struct {
	reads, repeated, never int
	longest                time.Duration
}

func (l *late) note(target string, tries int, after time.Duration, same bool) {
	path, query, _ := strings.Cut(target, "?")
	parts := strings.Split(path, "/")
	route := parts[1]
	switch {
	case len(parts) > 3:
		route = parts[3] // comments
	case len(parts) > 2 && parts[2] == "feed":
		route = "feed"
	case len(parts) > 2:
		route = "one of " + route
	case strings.Contains(query, "author=") || strings.Contains(query, "tag=") || strings.Contains(query, "favorited="):
		route += " by a filter"
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.routes == nil {
		l.routes = make(map[string]*lateness)
	}
	r := l.routes[route]
	if r == nil {
		r = new(lateness)
		l.routes[route] = r
	}
	r.reads++
	if tries > 1 {
		r.repeated++
		r.longest = max(r.longest, after)
	}
	if !same {
		r.never++
	}
}

func (l *late) log(t *testing.T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	routes := slices.SortedFunc(maps.Keys(l.routes), func(a, b string) int {
		return cmp.Or(-cmp.Compare(l.routes[a].repeated, l.routes[b].repeated), cmp.Compare(a, b))
	})
	var lines []string
	for _, route := range routes {
		r := l.routes[route]
		lines = append(lines, fmt.Sprintf("%s: %d of %d reads were repeated, for up to %s; %d never agreed", route, r.repeated, r.reads, r.longest.Round(time.Millisecond), r.never))
	}
	if len(lines) > 0 {
		t.Logf("without tokens:\n%s", strings.Join(lines, "\n"))
	}
}
