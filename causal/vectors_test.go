package causal_test

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
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
		Merges  []struct {
			What   string
			Tokens []string
			Merged string
		}
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
	for _, v := range vectors.Merges {
		var merged causal.Token
		for _, text := range v.Tokens {
			token, err := causal.Parse(text)
			if err != nil {
				t.Errorf("%s: %v", v.What, err)
			}
			merged = merged.Merge(token)
		}
		if merged.String() != v.Merged {
			t.Errorf("%s: merged %s, want %s", v.What, merged, v.Merged)
		}
	}
}

// checkPython follows the specification's Python, whose functions it calls.
const checkPython = `
import json, sys

vectors, failed = json.load(open(sys.argv[1])), False

def check(ok, *what):
    global failed
    if not ok:
        failed = True
        print(*what)

def refused(f, *args):
    try:
        f(*args)
    except ValueError:
        return True

key = vectors["key"].encode()
check(parse("") == ({}, False) and verify("", key) == ({}, False) and encode({}, False) == "", "nothing")
for v in vectors["tokens"]:
    marks = {}
    for m in v["marks"]:
        high, low = m["lsn"].split("/")
        marks[int(m["system"]), m["timeline"]] = (int(high, 16) << 32 | int(low, 16), m.get("epoch", 0), m.get("number", 0))
    token = marks, v.get("incomplete", False)
    check(parse(v["text"]) == token and verify(v["signed"], b"other", key) == token, v["what"])
    check(encode(*token) == v["text"] and sign(v["text"], key) == v["signed"], v["what"], "is formatted otherwise")
    for bad in (v["text"], v["text"] + ".", v["signed"] + "A", v["signed"] + "\n", v["signed"][:-2], "A" + v["signed"], "." + v["signed"], "\u00e4"):
        check(refused(verify, bad, key), v["what"], "is taken as", repr(bad))
    check(refused(verify, v["signed"], b"other") and refused(verify, v["signed"]), v["what"], "is taken from anyone")
for v in vectors["invalid"]:
    check(refused(parse, v["text"]) and refused(verify, sign(v["text"], key), key), v["why"], "is taken")
for v in vectors["merges"]:
    merged = {}, False
    for text in v["tokens"]:
        merged = merge(merged, parse(text))
    check(encode(*merged) == v["merged"], v["what"], merged)
sys.exit(failed)
`

// The specification's Python does what it says.
func TestPython(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3 to run the specification's example with")
	}
	spec, err := os.ReadFile(filepath.Join("..", "docs", "causal-token.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, code, found := strings.Cut(string(spec), "```python\n")
	code, _, ended := strings.Cut(code, "```")
	if !found || !ended {
		t.Fatal("docs/causal-token.md has no Python")
	}
	program := filepath.Join(t.TempDir(), "token.py")
	if err := os.WriteFile(program, []byte(code+checkPython), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), python, program, filepath.Join("testdata", "vectors.json")).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
