package seed_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/loadlinehq/loadline/examples/conduit/seed"
)

func at(t *testing.T, text string) time.Time {
	t.Helper()
	moment, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return moment
}

func TestRealContentIsMadeFit(t *testing.T) {
	t.Parallel()
	source := open(t, write(t, files()), 1)

	first := at(t, "2020-01-01T10:00:00Z")
	if diff := cmp.Diff([]seed.User{
		{ID: 7, Username: "ann-oneil-7", Email: "ann-oneil-7@conduit.example", CreatedAt: first},
		{ID: 9, Username: "关一骏-9", Email: "9@conduit.example", CreatedAt: at(t, "2020-01-03T10:00:00Z")},
		{ID: 11, Username: "user-11", Email: "user-11@conduit.example", CreatedAt: at(t, "2020-01-02T10:00:00Z")},
		{ID: 12, Username: "former-user", Email: "former-user@conduit.example", CreatedAt: first},
	}, slices.Collect(each(t, source.Users()))); diff != "" {
		t.Errorf("users (-want +got):\n%s", diff)
	}

	if diff := cmp.Diff([]seed.Article{
		{
			ID: 3, AuthorID: 7, Slug: "first-words-3", Title: "First words", Description: "One & two, three",
			Body: "<p>One &amp; two,</p>\n<p>three</p>", Tags: []string{"b", "a"},
			CreatedAt: at(t, "2020-01-04T10:00:00.123Z"), UpdatedAt: at(t, "2020-01-05T10:00:00Z"),
		},
		{
			ID: 5, AuthorID: 12, Slug: "5", Title: "!!!", Description: "!!!", Body: "<img>", Tags: []string{"a"},
			CreatedAt: at(t, "2020-01-06T10:00:00Z"), UpdatedAt: at(t, "2020-01-06T10:00:00Z"),
		},
	}, slices.Collect(each(t, source.Articles()))); diff != "" {
		t.Errorf("articles (-want +got):\n%s", diff)
	}

	if diff := cmp.Diff([]seed.Comment{
		{ID: 1, ArticleID: 3, AuthorID: 9, Body: "Fine", CreatedAt: at(t, "2020-01-05T10:00:00Z")},
		{ID: 2, ArticleID: 3, AuthorID: 12, Body: "<p>No</p>", CreatedAt: at(t, "2020-01-06T10:00:00Z")},
	}, slices.Collect(each(t, source.Comments()))); diff != "" {
		t.Errorf("comments (-want +got):\n%s", diff)
	}

	// Nobody is followed before both have joined.
	if diff := cmp.Diff([]seed.Follow{
		{FollowerID: 7, FolloweeID: 9, CreatedAt: at(t, "2020-01-03T10:00:00Z")},
	}, slices.Collect(each(t, source.Follows()))); diff != "" {
		t.Errorf("follows (-want +got):\n%s", diff)
	}
}

func TestSummaryIsShort(t *testing.T) {
	t.Parallel()
	broken := files()
	broken["articles.csv.gz"] = strings.Replace(broken["articles.csv.gz"], "two,", strings.Repeat("word ", 100), 1)
	for a := range each(t, open(t, write(t, broken), 1).Articles()) {
		if a.ID == 3 && (len(a.Description) > 170 || !strings.HasSuffix(a.Description, "word …")) {
			t.Errorf("got %q", a.Description)
		}
	}
}

func TestErrorsNameFileAndLine(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		file, old, new string
		want           []string
	}{
		"no number":         {"articles.csv.gz", "\n3,7,", "\nx,7,", []string{"articles.csv.gz", "line 2", "article_id", `"x"`}},
		"id too large":      {"users.csv.gz", "11,???", "100001,???", []string{"users.csv.gz", "line 4", "user_id", "100001"}},
		"ids not ascending": {"users.csv.gz", "11,???", "8,???", []string{"users.csv.gz", "line 4", "id 8 follows 9"}},
		"no time":           {"comments.csv.gz", "2020-01-05", "2020-31-05", []string{"comments.csv.gz", "line 2", "created_at"}},
		"no such user":      {"follows.csv.gz", "7,9,1", "7,10,1", []string{"follows.csv.gz", "line 2", "followee_id", "no user 10"}},
		"no such author":    {"comments.csv.gz", "3,9,comment", "3,8,comment", []string{"comments.csv.gz", "line 2", "author_id", "no user 8"}},
		"blank title":       {"articles.csv.gz", "!!!", " ", []string{"articles.csv.gz", "line 4", "title can't be blank"}},
		"blank comment":     {"comments.csv.gz", "Fine", "", []string{"comments.csv.gz", "line 2", "body can't be blank"}},
		"no column":         {"articles.csv.gz", "body_html", "body", []string{"articles.csv.gz", "header", "body_html"}},
		"too few fields":    {"favorites.csv.gz", ",2020-01-05", "", []string{"favorites.csv.gz", "line 2", "number of fields"}},
		"too long":          {"comments.csv.gz", "Fine", strings.Repeat("x", 16<<20), []string{"comments.csv.gz", "longer than"}},
		"nobody":            {"users.csv.gz", files()["users.csv.gz"], "user_id,display_name,created_at\n", []string{"users.csv.gz", "no users"}},
		"empty":             {"users.csv.gz", files()["users.csv.gz"], "", []string{"users.csv.gz", "header"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			broken := files()
			broken[c.file] = strings.Replace(broken[c.file], c.old, c.new, 1)
			if broken[c.file] == files()[c.file] {
				t.Fatal("the file is not broken")
			}
			err := readAll(write(t, broken))
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is missing in: %.300s", want, err)
				}
			}
		})
	}
}

func TestMissingFileIsNamed(t *testing.T) {
	t.Parallel()
	for _, name := range slices.Sorted(maps.Keys(files())) {
		incomplete := files()
		delete(incomplete, name)
		if _, err := seed.Open(write(t, incomplete), 1); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: got error %v", name, err)
		}
	}
}

// readAll returns the first error of the source in a folder.
func readAll(dir string) error {
	source, err := seed.Open(dir, 2)
	if err != nil {
		return err
	}
	for _, err := range source.Articles() {
		if err != nil {
			return err
		}
	}
	for _, err := range source.Comments() {
		if err != nil {
			return err
		}
	}
	for _, err := range source.Favorites() {
		if err != nil {
			return err
		}
	}
	for _, err := range source.Follows() {
		if err != nil {
			return err
		}
	}
	return nil
}
