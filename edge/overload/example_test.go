package overload_test

import (
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/loadlinehq/loadline/edge/overload"
)

func Example() {
	const connections = 16 // of the database's pools
	shed, err := overload.New(overload.Config{
		Ceiling: 2 * connections,
		Class: func(r *http.Request) overload.Class {
			if r.URL.Path == "/healthz" || r.URL.Path == "/stream" {
				return overload.Exempt
			}
			return overload.DefaultClass(r)
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer shed.Close()
	handler := shed.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "served") }))

	rec := httptest.NewRecorder()
	handler.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/", nil))
	fmt.Println(rec.Code, rec.Body)
	// Output: 200 served
}
