package seed_test

import (
	"fmt"
	"hash/maphash"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/loadlinehq/loadline/examples/conduit"
	"github.com/loadlinehq/loadline/examples/conduit/seed"
)

// sizes are numbers of rows.
type sizes struct{ Users, Articles, Comments, Favorites, Follows int }

// times returns the size of so many copies of the real content.
func times(copies int) sizes {
	return sizes{Users: 3838 * copies, Articles: 786 * copies, Comments: 6635 * copies, Favorites: 3631 * copies, Follows: 2150 * copies}
}

// check reads all of a source, fails the test for whatever the database or the
// API would refuse, and returns how much there is.
func check(t *testing.T, source seed.Source) sizes {
	t.Helper()
	now := time.Now()

	users, usernames, emails := map[int64]time.Time{}, map[string]bool{}, map[string]bool{}
	var lastID int64
	for u := range each(t, source.Users()) {
		registration := conduit.Registration{Username: u.Username, Email: u.Email, Password: seed.Password}
		if err := registration.Clean(); err != nil {
			t.Fatalf("user %d: %v", u.ID, err)
		}
		if u.ID <= lastID || usernames[u.Username] || emails[u.Email] || u.CreatedAt.After(now) {
			t.Fatalf("user %+v: not in order, not unique, or not yet", u)
		}
		if strings.ContainsFunc(u.Email, func(r rune) bool { return r > '~' }) {
			t.Fatalf("user %+v: the e-mail is not ASCII", u)
		}
		lastID, users[u.ID], usernames[u.Username], emails[u.Email] = u.ID, u.CreatedAt, true, true
	}

	articles, slugs := map[int64]time.Time{}, map[string]bool{}
	var last time.Time
	lastID = 0
	for a := range each(t, source.Articles()) {
		draft := conduit.Draft{Title: a.Title, Description: a.Description, Body: a.Body, TagList: a.Tags}
		if err := draft.Clean(); err != nil {
			t.Fatalf("article %d: %v", a.ID, err)
		}
		if diff := cmp.Diff(draft.TagList, a.Tags); diff != "" {
			t.Fatalf("article %d: tags are not clean:\n%s", a.ID, diff)
		}
		joined, ok := users[a.AuthorID]
		if !ok || a.CreatedAt.Before(joined) {
			t.Fatalf("article %d: by user %d who is not there yet", a.ID, a.AuthorID)
		}
		if a.ID <= lastID || slugs[a.Slug] || a.CreatedAt.Before(last) || a.UpdatedAt.Before(a.CreatedAt) || a.UpdatedAt.After(now) {
			t.Fatalf("article %d of %v: not in order, not unique, or not yet", a.ID, a.CreatedAt)
		}
		lastID, last, articles[a.ID], slugs[a.Slug] = a.ID, a.CreatedAt, a.CreatedAt, true
	}

	comments := 0
	lastID, last = 0, time.Time{}
	for c := range each(t, source.Comments()) {
		if err := conduit.CheckComment(c.Body); err != nil {
			t.Fatalf("comment %d: %v", c.ID, err)
		}
		published, ok := articles[c.ArticleID]
		if _, known := users[c.AuthorID]; !ok || !known || c.CreatedAt.Before(published) {
			t.Fatalf("comment %d: refers to what is not there yet", c.ID)
		}
		if c.ID <= lastID || c.CreatedAt.Before(last) || c.CreatedAt.After(now) {
			t.Fatalf("comment %d of %v: not in order", c.ID, c.CreatedAt)
		}
		lastID, last = c.ID, c.CreatedAt
		comments++
	}

	type pair struct{ a, b int64 }
	favorites := map[pair]bool{}
	for f := range each(t, source.Favorites()) {
		published, ok := articles[f.ArticleID]
		day := published.Truncate(24 * time.Hour) // real favourites have no time of day
		if _, known := users[f.UserID]; !ok || !known || f.CreatedAt.Before(day) || f.CreatedAt.After(now) {
			t.Fatalf("favourite %+v: refers to what is not there yet", f)
		}
		if favorites[pair{f.UserID, f.ArticleID}] {
			t.Fatalf("favourite %+v: there twice", f)
		}
		favorites[pair{f.UserID, f.ArticleID}] = true
	}

	follows := map[pair]bool{}
	for f := range each(t, source.Follows()) {
		follower, ok := users[f.FollowerID]
		followee, known := users[f.FolloweeID]
		if !ok || !known || f.CreatedAt.Before(follower) || f.CreatedAt.Before(followee) || f.CreatedAt.After(now) {
			t.Fatalf("follow %+v: refers to what is not there yet", f)
		}
		if f.FollowerID == f.FolloweeID || follows[pair{f.FollowerID, f.FolloweeID}] {
			t.Fatalf("follow %+v: there twice, or of oneself", f)
		}
		follows[pair{f.FollowerID, f.FolloweeID}] = true
	}
	return sizes{len(users), len(articles), comments, len(favorites), len(follows)}
}

func TestGenerated(t *testing.T) {
	t.Parallel()
	for _, scale := range []int{1, 2, 7} {
		if diff := cmp.Diff(times(scale), check(t, open(t, "", scale))); diff != "" {
			t.Errorf("scale %d (-want +got):\n%s", scale, diff)
		}
	}
}

func TestReal(t *testing.T) {
	t.Parallel()
	dir := realDir(t)
	for _, scale := range []int{1, 3} {
		want := times(scale)
		want.Users++ // the former user
		if diff := cmp.Diff(want, check(t, open(t, dir, scale))); diff != "" {
			t.Errorf("scale %d (-want +got):\n%s", scale, diff)
		}
	}
}

func TestGeneratedIsTheSameEveryTime(t *testing.T) {
	t.Parallel()
	hashSeed := maphash.MakeSeed()
	fingerprint := func() uint64 {
		var h maphash.Hash
		h.SetSeed(hashSeed)
		source := open(t, "", 2)
		for row := range each(t, source.Follows()) {
			fmt.Fprintln(&h, row)
		}
		for row := range each(t, source.Users()) {
			fmt.Fprintln(&h, row)
		}
		for row := range each(t, source.Articles()) {
			fmt.Fprintln(&h, row)
		}
		for row := range each(t, source.Comments()) {
			fmt.Fprintln(&h, row)
		}
		for row := range each(t, source.Favorites()) {
			fmt.Fprintln(&h, row)
		}
		return h.Sum64()
	}
	if first, second := fingerprint(), fingerprint(); first != second {
		t.Error("two readings differ")
	}
}

// Not parallel: other tests would count as well.
func TestMemoryDoesNotGrowWithScale(t *testing.T) {
	const rows, limit = 50_000, 4 << 20
	source := open(t, "", 1000)
	heap := func() uint64 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	before := heap()
	read := 0
	for range each(t, source.Favorites()) {
		if read++; read == rows {
			break
		}
	}
	for row := range each(t, source.Follows()) {
		if read++; read == 2*rows {
			if after := heap(); after > before+limit {
				t.Errorf("the heap grew by %d bytes", after-before)
			}
			if row.FollowerID > 3_838_000 || row.FolloweeID > 3_838_000 {
				t.Errorf("%+v: beyond the last user", row)
			}
			break
		}
	}
}

func TestScaleIsBounded(t *testing.T) {
	t.Parallel()
	for _, scale := range []int{-1, 0, seed.MaxScale + 1} {
		if _, err := seed.Open("", scale); err == nil {
			t.Errorf("scale %d was accepted", scale)
		}
	}
}
