package edge_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/loadlinehq/loadline/edge"
)

// draft-ietf-httpapi-idempotency-key-header-07, section 2.1: a string of structured fields; and what clients send.
func TestIdempotencyKeyDraftSyntax(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		`"8e03978e-40d5-43e8-bc93-6894a57f9324"`: "8e03978e-40d5-43e8-bc93-6894a57f9324",
		`8e03978e-40d5-43e8-bc93-6894a57f9324`:   "8e03978e-40d5-43e8-bc93-6894a57f9324",
		` "a b" `:                                "a b",
		`"a\"b\\c"`:                              `a"b\c`,
		strings.Repeat("k", 255):                 strings.Repeat("k", 255),
		"":                                       "",
		`""`:                                     "",
		`"a`:                                     "",
		`"a"b`:                                   "",
		`"a\b"`:                                  "",
		`"a\`:                                    "",
		"a\x00b":                                 "",
		"ключ":                                   "",
		strings.Repeat("k", 256):                 "",
	} {
		got, err := edge.ParseIdempotencyKey([]string{value})
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", value, got, err)
		}
	}
	if _, err := edge.ParseIdempotencyKey([]string{"a", "a"}); err == nil {
		t.Error("two headers are one key")
	}
}

func FuzzIdempotencyKey(f *testing.F) {
	for _, s := range []string{`"a"`, "a", `"\"`, "\x7f", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		key, err := edge.ParseIdempotencyKey([]string{value})
		if err != nil {
			return
		}
		if key == "" || len(key) > edge.MaxIdempotencyKey {
			t.Errorf("%q is the key %q", value, key)
		}
		quoted := `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(key) + `"`
		if again, err := edge.ParseIdempotencyKey([]string{quoted}); err != nil || again != key {
			t.Errorf("%q, quoted %q, is %q, %v", key, quoted, again, err)
		}
	})
}

func TestKeys(t *testing.T) {
	t.Parallel()
	var key edge.Key
	var id string
	handler := edge.Keys(edge.Errors{})(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		key, id = edge.KeyOf(r.Context()), edge.RequestID(r.Context())
	}))
	serve := func(headers ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		for i := 0; i < len(headers); i += 2 {
			r.Header.Add(headers[i], headers[i+1])
		}
		rec := httptest.NewRecorder()
		handler.ServeHTTP(rec, r)
		return rec
	}
	rec := serve()
	if made, err := uuid.Parse(key.Text); err != nil || made.Version() != 7 || key.Given {
		t.Errorf("%+v, %v", key, err)
	}
	if got := rec.Header().Get("X-Request-Id"); got != id || id == "" || id == key.Text {
		t.Errorf("id %q, answered %q", id, got)
	}
	serve("Idempotency-Key", `"k-1"`, "X-Request-Id", "r-1")
	if key != (edge.Key{Text: "k-1", Given: true}) || id != "r-1" {
		t.Errorf("%+v, %q", key, id)
	}
	if serve("X-Request-Id", "a\nb"); id == "a\nb" {
		t.Error("an id that is not fit to be logged")
	}
	if rec := serve("Idempotency-Key", `"k`); rec.Code != 400 || !strings.Contains(rec.Body.String(), "quotes do not end") {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
}
