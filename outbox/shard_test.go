package outbox_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/loadlinehq/loadline/outbox"
)

// shardSQL is the expression in docs/outbox.md, for writers in other languages.
func shardSQL(t *testing.T) string {
	t.Helper()
	doc, err := os.ReadFile("../docs/outbox.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?s)CREATE FUNCTION outbox_shard.*?\n\$\$;\n`).Find(doc)
	if found == nil {
		t.Fatal("docs/outbox.md has no function outbox_shard")
	}
	return string(found)
}

// A writer in another language comes to the shard that Add does, by what the document says:
// otherwise a key would be in two, and out of order.
func TestShardInSQL(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.exec(shardSQL(t))
	for _, shards := range []int{1, 2, 3, 7, outbox.MaxShards} {
		box, err := outbox.New(outbox.Config{Shards: shards})
		if err != nil {
			t.Fatal(err)
		}
		keys := []string{"", "a", "b", "zürich", "京都", "🙂", "e\u0301", "\u00e9", " ", "\\x41", "'", "\t\n", strings.Repeat("k", 256)}
		some := rapid.StringN(1, 50, 200).Filter(func(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") })
		for i := range 200 {
			keys = append(keys, some.Example(i), fmt.Sprint("key ", i))
		}
		for _, key := range keys {
			m := event(t, "k", 1)
			if m.Key = key; key == "" {
				m.KeyVersion = 0
			}
			if err := box.Add(t.Context(), d.Pool, m); err != nil {
				t.Fatal(err)
			}
		}
		if n := d.int("select count(*) from loadline.outbox"); n != int64(len(keys)) {
			t.Fatalf("%d rows", n)
		}
		if n := d.int("select count(*) from loadline.outbox where shard <> outbox_shard(key, id, $1)", shards); n != 0 {
			t.Errorf("of %d keys in %d shards, SQL puts %d elsewhere", len(keys), shards, n)
		}
		if n := d.int("select count(distinct shard) from loadline.outbox"); n != int64(shards) {
			t.Errorf("the keys are in %d of %d shards", n, shards)
		}
		d.exec("truncate loadline.outbox")
	}
}
