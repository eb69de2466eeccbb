package natsjs

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestSubjects(t *testing.T) {
	t.Parallel()
	d := &Driver{events: "events."}
	for _, c := range []struct {
		typ       string
		partition int
		want      string
	}{
		{"article.published", -1, "events.article.published"},
		{"article.published", 7, "events.article.published.P07"},
		{"article", 15, "events.article.P15"},
		{"article.p15", -1, "events.article.p15"},
		{"p07", -1, "events.p07"},
		{"p07", 7, "events.p07.P07"},
	} {
		got, err := d.subject(c.typ, c.partition)
		if err != nil || got != c.want {
			t.Errorf("%s, %d: %s, %v", c.typ, c.partition, got, err)
		}
		if typ, partition := d.address(got); typ != c.typ || partition != c.partition {
			t.Errorf("%s is read as %s, %d", got, typ, partition)
		}
	}
	for _, typ := range []string{"", "a.P07", "a.*", "a b", ".", "a.", "ä"} {
		if got, err := d.subject(typ, -1); err == nil {
			t.Errorf("%q has the subject %s", typ, got)
		}
	}
	if got, err := d.subject("a", 100); err == nil {
		t.Errorf("partition 100 has the subject %s", got)
	}
}

// Two types, or partitions, with one subject would get each other's events.
func TestSubjectsDoNotCollide(t *testing.T) {
	t.Parallel()
	d := &Driver{events: "events."}
	name := rapid.StringMatching(`[a-zP0-9_-]{1,3}(\.[a-zPp0-9]{1,3}){0,3}`)
	rapid.Check(t, func(t *rapid.T) {
		type address struct {
			typ       string
			partition int
		}
		a := address{name.Draw(t, "a"), rapid.IntRange(-1, 15).Draw(t, "partition of a")}
		b := address{name.Draw(t, "b"), rapid.IntRange(-1, 15).Draw(t, "partition of b")}
		x, errX := d.subject(a.typ, a.partition)
		y, errY := d.subject(b.typ, b.partition)
		if errX == nil && errY == nil && (x == y) != (a == b) {
			t.Fatalf("%v has %s, %v has %s", a, x, b, y)
		}
		if errX == nil {
			if typ, partition := d.address(x); (address{typ, partition}) != a {
				t.Fatalf("%v is read as %s, %d", a, typ, partition)
			}
		}
	})
}

func TestDurablesDoNotCollide(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"api-workers": "api-workers", "api-workers-P03": "api-workers-P03", "a.b": "a_db", "a_db": "a__db", "a:b c": "a_x3Ab_x20c",
	} {
		if got := Durable(name); got != want {
			t.Errorf("%q is %q, want %q", name, got, want)
		}
	}
	name := rapid.StringMatching(`[a-c_.d:x0-9A-F -]{1,8}`)
	rapid.Check(t, func(t *rapid.T) {
		a, b := name.Draw(t, "a"), name.Draw(t, "b")
		if x, y := Durable(a), Durable(b); (x == y) != (a == b) || strings.ContainsAny(x, ".*> /\\") {
			t.Fatalf("%q is %q, %q is %q", a, x, b, y)
		}
	})
}

func TestCovers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, subject string
		want             bool
	}{
		{"events.>", "events.a.b", true},
		{"events.>", "events", false},
		{"events.*", "events.a", true},
		{"events.*", "events.a.b", false},
		{"events.a", "events.a", true},
		{"events.a", "events.b", false},
		{"events.*.b", "events.a.b", true},
		{"events.a.b", "events.a", false},
	} {
		if got := covers(c.pattern, c.subject); got != c.want {
			t.Errorf("%s covers %s: %v", c.pattern, c.subject, got)
		}
	}
}

func TestHeaderSafe(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"fine": "fine", " a\n\tb\r\n": "a  b", "größe\x00": "gr??e?", "": "", "\xff": "?",
	} {
		if got := headerSafe(text, 100); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
	if got := headerSafe(strings.Repeat("x", 5000), 1024); len(got) != 1024 {
		t.Errorf("%d bytes are left", len(got))
	}
}
