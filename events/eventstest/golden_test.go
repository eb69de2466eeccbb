package eventstest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/loadlinehq/loadline/events"
)

type order struct {
	ID    string   `json:"id"`
	Total int      `json:"total"`
	Items []item   `json:"items"`
	Notes []string `json:"notes"`
}

type item struct {
	SKU string `json:"sku"`
}

func TestGoldenOfAType(t *testing.T) {
	Golden(t, events.Define[order]("order.created", events.V1), order{"1", 2, []item{{"x"}}, []string{"n"}})
}

func TestGolden(t *testing.T) {
	t.Parallel()
	type m = map[string]any
	base := func() m {
		return m{"id": "1", "total": 2, "items": []any{m{"sku": "x"}}, "null": nil}
	}
	with := func(change func(m)) m {
		v := base()
		change(v)
		return v
	}
	for _, c := range []struct {
		name           string
		example        any
		want           string // without update; empty: passes
		wantWithUpdate string
	}{
		{"the same", base(), "", ""},
		{"another value", with(func(v m) { v["id"] = "2" }), "other values", ""},
		{"added", with(func(v m) { v["new"] = 1 }), "payload.new is new", ""},
		{"added deep", with(func(v m) { v["items"] = []any{m{"sku": "x", "n": 1}} }), "payload.items[0].n is new", ""},
		{"null no more", with(func(v m) { v["null"] = 1 }), "payload.null was null", ""},
		{"removed", with(func(v m) { delete(v, "total") }), "payload.total is gone", "payload.total is gone"},
		{"removed deep", with(func(v m) { v["items"] = []any{m{}} }), "payload.items[0].sku is gone", "items[0].sku is gone"},
		{"renamed", with(func(v m) { delete(v, "total"); v["sum"] = 2 }), "payload.total is gone", "payload.total is gone"},
		{"another type", with(func(v m) { v["total"] = "2" }), "payload.total was a number, and is a string", "was a number"},
		{"another type deep", with(func(v m) { v["items"] = []any{m{"sku": 1}} }), "sku was a string", "sku was a string"},
		{"a list of nothing", with(func(v m) { v["items"] = []any{} }), "shows nothing", "shows nothing"},
		{"null now", with(func(v m) { v["id"] = nil }), "payload.id was a string, and is null", "is null"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "events", "order.created.v1.json")
			if err := golden(path, base(), false); err == nil || !strings.Contains(err.Error(), "-update") {
				t.Errorf("without a file: %v", err)
			}
			if err := golden(path, base(), true); err != nil {
				t.Fatal(err)
			}
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			is := func(err error, want string) {
				t.Helper()
				if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q", err, want)
				}
			}
			is(golden(path, c.example, false), c.want)
			is(golden(path, c.example, true), c.wantWithUpdate)
			after, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if changed := string(before) != string(after); changed != (c.want != "" && c.wantWithUpdate == "") {
				t.Errorf("the file was changed: %v", changed)
			}
			if c.wantWithUpdate == "" {
				is(golden(path, c.example, false), "")
			}
		})
	}
}
