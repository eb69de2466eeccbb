package contract

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

const (
	goodUser    = `{"user":{"username":"ann","email":"ann@example.com","token":"t","bio":null,"image":null}}`
	goodListing = `{"articles":[{"slug":"s","title":"t","description":"d","tagList":[],"createdAt":"2026-01-02T03:04:05.678Z",` +
		`"updatedAt":"2026-01-02T03:04:05.678Z","favorited":false,"favoritesCount":0,` +
		`"author":{"username":"ann","bio":null,"image":null,"following":false}}],"articlesCount":1}`
	goodError = `{"errors":{"token":["is missing"]}}`
)

// TestValidation breaks answers on purpose: a validator that lets one pass
// proves nothing about the application.
func TestValidation(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		method, target string // GET /user if empty
		status         int
		contentType    string
		body           string
		fault          string // part of what the validator says; empty: no fault
	}{
		"good user":         {status: 200, body: goodUser},
		"good error":        {status: 401, body: goodError},
		"good list":         {target: "/articles?limit=1", status: 200, body: goodListing},
		"good deletion":     {method: "DELETE", target: "/articles/a-slug", status: 204},
		"feed is no slug":   {target: "/articles/feed", status: 200, body: goodListing},
		"escaped slug":      {target: "/articles/a%2Fb%00%FF", status: 404, body: `{"errors":{"article":["not found"]}}`},
		"status of another": {status: 201, body: goodUser, fault: "201"},
		"status unknown":    {status: 418, body: goodError, fault: "418"},
		"status of failure": {status: 500, body: goodError, fault: "500"},
		"missing field":     {status: 200, body: strings.Replace(goodUser, `"bio":null,`, "", 1), fault: "bio"},
		"missing key":       {status: 200, body: `{}`, fault: "user"},
		"wrong type":        {status: 200, body: strings.Replace(goodUser, `"ann"`, "7", 1), fault: "string"},
		"wrong null":        {status: 200, body: strings.Replace(goodUser, `"ann"`, "null", 1), fault: "string"},
		"wrong time":        {target: "/articles", status: 200, body: strings.Replace(goodListing, "T03:04:05.678Z", "", 1), fault: "date-time"},
		"wrong number":      {target: "/articles", status: 200, body: strings.Replace(goodListing, `Count":0`, `Count":0.5`, 1), fault: "integer"},
		"leaked field":      {status: 200, body: strings.Replace(goodUser, `"bio"`, `"passwordHash":"x","bio"`, 1), fault: "passwordHash"},
		"body in a list":    {target: "/articles", status: 200, body: strings.Replace(goodListing, `"title"`, `"body":"b","title"`, 1), fault: "body"},
		"null":              {status: 200, body: `null`, fault: "null"},
		"no body":           {status: 200, fault: "body"},
		"no JSON":           {status: 200, body: `<html>`, fault: "decode"},
		"cut short":         {status: 200, body: goodUser[:40], fault: "decode"},
		"no charset":        {status: 200, body: goodUser, contentType: "application/json", fault: "Content-Type"},
		"text":              {status: 200, body: goodUser, contentType: "text/plain; charset=utf-8", fault: "Content-Type"},
		"error as a string": {status: 401, body: `{"errors":"token is missing"}`, fault: "object"},
		"error in a string": {status: 401, body: `{"errors":{"token":"is missing"}}`, fault: "array"},
		"error of nothing":  {status: 401, body: `{"errors":{}}`, fault: "no field"},
		"error of silence":  {status: 401, body: `{"errors":{"token":[]}}`, fault: "no message"},
		"unknown route":     {target: "/nothing", status: 200, body: `{}`, fault: "no operation"},
		"unknown method":    {method: "PATCH", status: 200, body: goodUser, fault: "no operation"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if test.method == "" {
				test.method = http.MethodGet
			}
			if test.target == "" {
				test.target = "/user"
			}
			if test.contentType == "" {
				test.contentType = contentType
			}
			server := httptest.NewServer(answerWith(test.status, test.contentType, test.body))
			t.Cleanup(server.Close)
			s := newSuite(t, Target{URLs: []string{server.URL}})

			got, err := s.send(t.Context(), call{method: test.method, target: test.target, token: "t"})
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case test.fault == "" && got.fault != nil:
				t.Errorf("%s\nis within the contract, but: %v", got, got.fault)
			case test.fault != "" && got.fault == nil:
				t.Errorf("%s\npassed, wanted a fault that says %q", got, test.fault)
			case test.fault != "" && !strings.Contains(got.fault.Error(), test.fault):
				t.Errorf("%s\nfault %q does not say %q", got, got.fault, test.fault)
			}
		})
	}
}

// answerWith gives every request the same answer.
func answerWith(status int, contentType, body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

func TestCoverage(t *testing.T) {
	t.Parallel()
	s, err := newSpec(openapi)
	if err != nil {
		t.Fatal(err)
	}
	for name := range neverSeen {
		if !slices.Contains(s.unseen(nil), name) {
			t.Errorf("openapi.yml does not document %s, which neverSeen excuses", name)
		}
	}
	before := s.unseen(neverSeen)
	for _, name := range []string{"GET /tags 200", "POST /users 409", "GET /articles/{slug} 404"} {
		if !slices.Contains(before, name) {
			t.Errorf("nothing was called, but %s is not missing from %v", name, before)
		}
	}
	_ = s.check(http.MethodGet, "/articles/some-slug", http.StatusNotFound, http.Header{}, nil)
	if after := s.unseen(neverSeen); len(after) != len(before)-1 || slices.Contains(after, "GET /articles/{slug} 404") {
		t.Errorf("after one call %v is missing", after)
	}
}

func TestRequestsTakeTurns(t *testing.T) {
	t.Parallel()
	var urls []string
	hits := make([]int, 3) // The requests come one after the other.
	for i := range hits {
		server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits[i]++ }))
		t.Cleanup(server.Close)
		urls = append(urls, server.URL)
	}
	s := newSuite(t, Target{URLs: urls})
	for range 6 {
		if _, err := s.send(t.Context(), call{method: http.MethodGet, target: "/tags"}); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(hits, []int{2, 2, 2}) {
		t.Errorf("six requests to three instances went %v", hits)
	}
}
