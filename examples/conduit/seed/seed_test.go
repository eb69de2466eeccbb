package seed_test

import (
	"compress/gzip"
	"iter"
	"os"
	"path/filepath"
	"testing"

	"github.com/loadlinehq/loadline/examples/conduit/seed"
)

// realDir returns the folder of the real content, or skips the test.
func realDir(t *testing.T) string {
	t.Helper()
	library := os.Getenv("LOADLINE_DATA")
	if library == "" {
		t.Skip("LOADLINE_DATA is not set: the real content is needed")
	}
	return filepath.Join(library, "data", "conduit-seed")
}

func open(t *testing.T, dir string, scale int) seed.Source {
	t.Helper()
	source, err := seed.Open(dir, scale)
	if err != nil {
		t.Fatal(err)
	}
	return source
}

// each yields the rows until one of them is an error, which fails the test.
func each[T any](t *testing.T, rows iter.Seq2[T, error]) iter.Seq[T] {
	t.Helper()
	return func(yield func(T) bool) {
		for row, err := range rows {
			if err != nil {
				t.Fatal(err)
			}
			if !yield(row) {
				return
			}
		}
	}
}

// files are the five of the real content, each with the least it can have.
func files() map[string]string {
	return map[string]string{
		"users.csv.gz": "user_id,display_name,created_at,reputation\n" +
			"7,Ann O'Neil,2020-01-01T10:00:00.000Z,1\n" +
			"9,关一骏,2020-01-03T10:00:00.000Z,1\n" +
			"11,???,2020-01-02T10:00:00.000Z,1\n",
		"articles.csv.gz": "article_id,author_id,title,body_html,tags,created_at,updated_at\n" +
			"3,7,First words,\"<p>One &amp; two,</p>\n<p>three</p>\",b;a,2020-01-04T10:00:00.123Z,2020-01-05T10:00:00.000Z\n" +
			"5,,!!!,<img>,a,2020-01-06T10:00:00.000Z,2020-01-06T10:00:00.000Z\n",
		"comments.csv.gz": "comment_id,article_id,author_id,kind,body,created_at\n" +
			"c8,3,9,comment,Fine,2020-01-05T10:00:00.000Z\n" +
			"a4,3,,answer,<p>No</p>,2020-01-06T10:00:00.000Z\n",
		"favorites.csv.gz": "article_id,user_id_assigned,date\n3,9,2020-01-05\n",
		"follows.csv.gz":   "follower_id,followee_id,interactions\n7,9,1\n",
	}
}

// write puts the files into a new folder.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		file, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		zipped := gzip.NewWriter(file)
		if _, err := zipped.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
		if err := zipped.Close(); err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
