package caching_test

import (
	"strings"
	"testing"

	"github.com/loadlinehq/loadline/examples/conduit/caching"
)

// Names that lower() takes for the same, in any locale, have one tag.
func TestFold(t *testing.T) {
	t.Parallel()
	for _, same := range []string{
		"ann ANN Ann aNN", "straße STRAßE STRAẞE", "οδος ΟΔΟΣ οδοσ", "i I ı İ i\u0307", "ǅ ǆ Ǆ", "k K \u212a", "æ Æ", "İstanbul istanbul ISTANBUL",
	} {
		names := strings.Fields(same)
		for _, name := range names[1:] {
			if caching.Fold(name) != caching.Fold(names[0]) {
				t.Errorf("%q and %q have the tags %q and %q", names[0], name, caching.Fold(names[0]), caching.Fold(name))
			}
		}
	}
	if caching.Fold("ann") == caching.Fold("änn") || caching.Fold("") != "" {
		t.Error("different names have one tag")
	}
}
