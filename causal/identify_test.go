package causal_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/loadlinehq/loadline/causal"
)

type mapStore map[string]causal.Token

func (c mapStore) Load(_ context.Context, p string) (causal.Token, error) { return c[p], nil }
func (c mapStore) Save(_ context.Context, p string, t causal.Token) error {
	c[p] = c[p].Merge(t)
	return nil
}

func TestIdentifyLate(t *testing.T) {
	t.Parallel()
	keys, _ := causal.NewKeys([]byte(strings.Repeat("k", causal.MinKeySize)))
	for _, late := range []bool{false, true} {
		store := mapStore{}
		h, err := causal.NewHTTP(causal.HTTPConfig{Keys: keys, Store: store, Principal: func(*http.Request) string { return "" }})
		if err != nil {
			t.Fatal(err)
		}
		h.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s := causal.FromContext(r.Context())
			s.Add(causal.Mark{System: 1, Timeline: 1, LSN: 5})
			if late {
				w.WriteHeader(201)
			}
			s.Identify("ann")
		})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/", nil))
		if _, ok := store["ann"].Mark(1); !ok {
			t.Errorf("identified after the header: %t: not stored", late)
		}
	}
}
