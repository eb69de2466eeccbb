package config_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/internal/config"
)

// Whatever a file of the greatest size is made of, reading it takes little time, and
// no more stack than there is.
func TestWorkIsBounded(t *testing.T) {
	t.Parallel()
	// The short form: what takes longest for its size.
	parts, heads, sizes := []string{"a:\n"}, []string{""}, []int{4_000}
	if os.Getenv("LOADLINE_SLOW") != "" {
		sizes = []int{9_900, config.MaxFileBytes - 100} // as many tokens as are parsed, and as many bytes as are read
		heads = append(heads, "database:\n  max: ")
		parts = append(parts, "[", "- ", "a: b\n", "{", "[[]", "{a: ", "? ", "&a ", "!t ", "!t\n", "*a ", "a: |\n x\n", "a: [b]\n", "\"", "'", "%x\n", "#\n", "---\n", "\\", "-\n", "\r", "x", "x ", ", ")
	}
	for _, part := range parts {
		for _, head := range heads {
			for _, size := range sizes {
				began := time.Now()
				_, _, _ = load(t, head+strings.Repeat(part, size/len(part)))
				if took := time.Since(began); took > 15*time.Second { // less than 1 s without -race
					t.Errorf("%d bytes of %q after %q took %s", size, part, head, took)
				} else if testing.Verbose() {
					t.Logf("%d bytes of %q after %q took %s", size, part, head, took.Round(time.Millisecond))
				}
			}
		}
	}
}

func FuzzLoad(f *testing.F) {
	for _, seed := range []string{
		"", "database:\n  max: 3\n", "a: &b [*b]\n", "database: {url: 'postgres://a:b@c'}\n", "? a\n: b\n", "auth:\n  jwtSecret: |\n    x\n",
		"--- a\n...\n", "%YAML 1.2\n---\n", "{a: 1, a: 2}", "database:\r\n  replicas:\r\n  - x\r\n", "\ufeffa: b", "<<: {}\n", "!!binary aGk=\n", "x-a:\n - - b\n",
	} {
		f.Add(seed, "3")
	}
	f.Fuzz(func(t *testing.T, content, variable string) {
		_, values, err := load(t, content, "POOL_MAX="+variable, "REPLICAS="+variable, "QUERY_TIMEOUT="+variable)
		if err == nil && values == nil {
			t.Fatal("neither values nor an error")
		}
		if values != nil {
			var out strings.Builder
			if err := values.WriteYAML(&out); err != nil {
				t.Fatal(err)
			}
			// In the form that is printed, nothing is malformed, whatever its values.
			if _, again, err := load(t, out.String()); again == nil || err != nil && strings.Contains(err.Error(), "is not a key") {
				t.Fatalf("what was printed is not understood: %v\n%s", err, out.String())
			}
		}
	})
}
