package edge_test

import (
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/loadlinehq/loadline/edge"
)

func Example() {
	// Whom to believe of who has connected to whom.
	address, err := edge.ClientAddress(edge.ClientAddressConfig{Trusted: []string{"10.0.0.0/8"}})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /whoami", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, edge.ClientAddr(r.Context()))
	})
	mux.HandleFunc("GET /bug", func(http.ResponseWriter, *http.Request) { panic("a bug") })
	handler := edge.Recover(edge.Errors{})(edge.Keys(edge.Errors{})(address(edge.Deadline(edge.DeadlineConfig{})(mux))))

	for _, path := range []string{"/whoami", "/bug"} {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.RemoteAddr = "10.0.0.1:40000"                           // the load balancer
		r.Header.Set("X-Forwarded-For", "127.0.0.1, 203.0.113.7") // the client has sent the first of these himself
		rec := httptest.NewRecorder()
		handler.ServeHTTP(rec, r)
		fmt.Println(rec.Code, rec.Body)
	}
	// Output:
	// 200 203.0.113.7
	//
	// 500 {"status":500,"title":"Internal Server Error"}
}
