package realtime_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/loadlinehq/loadline/realtime"
)

func Example() {
	ctx := context.Background()
	gateway, err := realtime.Open(ctx, realtime.Config{
		Authenticate: realtime.Anonymous,
		Namespaces:   map[string]realtime.Namespace{"article": {Subscribe: realtime.Anyone, History: 100, HistoryAge: 5 * time.Minute}},
	})
	if err != nil {
		panic(err)
	}
	defer gateway.Close() // or Run, which drains
	server := httptest.NewServer(gateway.Handler())
	defer server.Close()

	channel := realtime.ChannelOf(ctx, "article", "how-to")
	if err := gateway.Publish(ctx, realtime.Publication{Channel: channel, Data: map[string]string{"comment": "Well"}}); err != nil {
		panic(err)
	}
	// The least of clients: where is the channel now?
	response, err := http.Post(server.URL+"/poll", "application/json", strings.NewReader(`{"channels":{"article:how-to":{}}}`))
	if err != nil {
		panic(err)
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	fmt.Println(strings.Contains(string(body), `"offset":1`))
	// Output: true
}
