package load_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/loadlinehq/loadline/internal/load"
)

// A reader opens the list and then, after a look at it, the first article.
func Example() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /articles", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `["about-load-lines"]`) })
	mux.HandleFunc("GET /articles/{slug}", func(http.ResponseWriter, *http.Request) {})
	server := httptest.NewServer(mux)
	defer server.Close()

	read := func(ctx context.Context, u *load.User) error {
		list, err := u.NewRequest(ctx, http.MethodGet, "/articles", nil)
		if err != nil {
			return err
		}
		resp, err := u.Do("GET /articles", list)
		if err != nil {
			return err
		}
		var slugs []string
		if err := json.NewDecoder(resp.Body).Decode(&slugs); err != nil {
			return err
		}
		if err := u.Think(ctx, time.Duration(u.Rand.ExpFloat64()*float64(10*time.Millisecond))); err != nil {
			return err
		}
		page, err := u.NewRequest(ctx, http.MethodGet, "/articles/"+slugs[0], nil)
		if err != nil {
			return err
		}
		_, err = u.Do("GET /articles/{slug}", page)
		return err
	}

	report, err := load.Run(context.Background(), load.Config{
		Target:   server.URL,
		Journeys: []load.Weighted{{Name: "read", Run: read}},
		Steps:    []load.Step{{Rate: 100, Duration: 300 * time.Millisecond, Warmup: 100 * time.Millisecond}},
		Arrivals: load.PoissonPinned,
		Seed:     42,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	step := report.Steps[0]
	fmt.Println(step.Planned, "planned,", step.Good, "good,", step.Dropped, "dropped")
	for _, route := range step.Routes {
		fmt.Println(route.Route, route.Response.Count())
	}
	// Output:
	// 20 planned, 20 good, 0 dropped
	// GET /articles 20
	// GET /articles/{slug} 20
}
