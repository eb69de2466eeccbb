package causal_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/loadlinehq/loadline/causal"
)

// The specification's examples are what the code does.
func TestVectors(t *testing.T) {
	t.Parallel()
	body, err := os.ReadFile(filepath.Join("testdata", "vectors.json"))
	if err != nil {
		t.Fatal(err)
	}
	spec, err := os.ReadFile(filepath.Join("..", "docs", "causal-token.md"))
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		Key    string
		Tokens []struct {
			What       string
			Incomplete bool
			Marks      []struct {
				System        string
				Timeline      uint32
				LSN           string
				Epoch, Number uint64
			}
			Text, Signed string
		}
		Invalid []struct{ Why, Text string }
	}
	if err := json.Unmarshal(body, &vectors); err != nil {
		t.Fatal(err)
	}
	k := keys(t, []byte(vectors.Key))
	for _, v := range vectors.Tokens {
		token := causal.Token{}
		if v.Incomplete {
			token = causal.Unknown()
		}
		for _, m := range v.Marks {
			system, err := strconv.ParseUint(m.System, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			lsn, err := causal.ParseLSN(m.LSN)
			if err != nil {
				t.Fatal(err)
			}
			token = token.Add(causal.Mark{System: system, Timeline: m.Timeline, LSN: lsn, Epoch: m.Epoch, Number: m.Number})
		}
		if token.String() != v.Text || k.Sign(token) != v.Signed {
			t.Errorf("%s: %s, signed %s", v.What, token, k.Sign(token))
		}
		if got, err := k.Verify(v.Signed); err != nil || !got.Equal(token) {
			t.Errorf("%s: %v, %v", v.What, got, err)
		}
		if !strings.Contains(string(spec), v.Signed) {
			t.Errorf("%s: is not in docs/causal-token.md", v.What)
		}
	}
	for _, v := range vectors.Invalid {
		if token, err := causal.Parse(v.Text); !errors.Is(err, causal.ErrToken) {
			t.Errorf("%s: %v, %v", v.Why, token, err)
		}
	}
}
