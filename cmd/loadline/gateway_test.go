package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/loadlinehq/loadline/realtime"
)

// An event that a transaction has added is told to a browser, by a gateway that knows of the application its configuration alone: two of
// them, one of which is asked to end.
func TestGatewayRealtime(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	secret := strings.Repeat("s", 32)
	address := regexp.MustCompile(`channels are served" address=(\S+)`)
	gateway := func() (*running, string) {
		cmd := m.command(t.Context(), "gateway", "realtime", "--listen", "127.0.0.1:0", "--redis", m.RedisURL, "--prefix", m.KeyPrefix+"rt", "--namespace", "order=known,history=100/5m",
			"--feed", "order.placed=order:{number}", "--drain", "1s")
		cmd.Env = append(cmd.Env, "LOADLINE_REALTIME_JWT_SECRET="+secret)
		r := start(t, cmd)
		var found []string
		r.eventually(20*time.Second, "an address", func() bool {
			found = address.FindStringSubmatch(r.out.String())
			return found != nil
		})
		return r, "http://" + found[1] + "/realtime"
	}
	first, url := gateway()
	_, other := gateway()
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": "ann", "exp": time.Now().Add(time.Hour).Unix()}).SignedString([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	type place struct {
		Offset       uint64
		Epoch        string
		Publications []struct{ Data json.RawMessage }
	}
	poll := func(url, token string, p place) (int, place) {
		t.Helper()
		body := fmt.Sprintf(`{"token":%q,"channels":{"order:0":{"offset":%d,"epoch":%q}},"wait":20}`, token, p.Offset, p.Epoch)
		response, err := http.Post(url+"/poll", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		var answer struct{ Channels map[string]place }
		if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, answer.Channels["order:0"]
	}
	if status, _ := poll(url, "forged", place{}); status != http.StatusUnauthorized {
		t.Errorf("a forged token: %d", status)
	}
	_, here := poll(url, token, place{})
	start(t, m.command(t.Context(), "events", "relay", "--poll", "100ms"))
	m.add(1)
	status, told := poll(url, token, here)
	if status != http.StatusOK || len(told.Publications) != 1 || string(told.Publications[0].Data) != `{"number":0}` {
		t.Errorf("%d %+v", status, told)
	}
	if err := first.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := first.waitEnd(30 * time.Second); code != 0 {
		t.Errorf("it ends with %d", code)
	}
	if status, again := poll(other, token, here); status != http.StatusOK || len(again.Publications) != 1 {
		t.Errorf("the other gateway: %d %+v", status, again)
	}
}

func TestGatewayRealtimeRefuses(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	m.refuse([]string{"gateway", "realtime", "--namespace", "a=someone", "--namespace", "b=own,history=x", "--feed", "x", "--feed", "y=c:{}"},
		`"a=someone" is not like`, "history is like history=100/5m", `"x" is not like comment.posted=article:{slug}`, `"y=c:{}"`, "--jwt-secret and --anonymous are missing")
	m.refuse([]string{"gateway", "realtime", "--anonymous", "--namespace", "a=anyone", "--feed", "x=b:1"}, "namespace b, which no --namespace names")
	m.refuse([]string{"gateway", "realtime", "--jwt-secret", "short", "--namespace", "a=anyone"}, "has 5 bytes")
	m.refuse([]string{"gateway", "realtime", "--anonymous", "--namespace", "a=anyone", "--redis", "redis://127.0.0.1:1"}, "Redis[0]")
}

func TestFeeds(t *testing.T) {
	t.Parallel()
	for text, c := range map[string]struct{ payload, want string }{
		"a=n:{slug}":        {`{"slug":"how-to"}`, "how-to"},
		"a@v2=n:{a}-{b}":    {`{"a":"x","b":12345678901234567890}`, "x-12345678901234567890"},
		"a=n:fixed":         {`[]`, "fixed"},
		"a=n:{missing}":     {`{}`, ""},
		"a=n:{object}":      {`{"object":{}}`, ""},
		"a=n:{slug} ":       {`{"slug":null}`, ""},
		"a=n:{of.an array}": {`[]`, ""},
	} {
		f, err := parseFeed(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got, err := f.fill(json.RawMessage(c.payload))
		if (err == nil) != (c.want != "") || err == nil && got != c.want {
			t.Errorf("%s of %s: %q, %v", text, c.payload, got, err)
		}
	}
	if f, _ := parseFeed("a@v2=n:x"); f.event != "a" || f.version != "v2" || f.namespace != "n" {
		t.Errorf("%+v", f)
	}
	name, n, err := parseNamespace("chat=known,history=10/30s,state,presence,publish=own")
	if err != nil || name != "chat" || n.History != 10 || n.HistoryAge != 30*time.Second || !n.State || !n.Presence || n.Publish == nil {
		t.Errorf("%s %+v %v", name, n, err)
	}
	if err := n.Publish(t.Context(), realtime.Identity{User: "a"}, realtime.Channel{Name: "b"}); err == nil {
		t.Error("own is anyone")
	}
}
