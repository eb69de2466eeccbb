package contract_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/internal/stack"
)

// Two users in two windows, on two instances: what one writes the other sees, and hears of; what is deleted goes; each instance dies while comments are
// written through the other, and both pages show what is in the database, once. What fails to be read is read again. Who logs out hears nothing any more
// that is for him, and who logs in as another is the other in all windows. Without Redis all read.
// LOADLINE_SCREENSHOTS is a directory for what was seen.
func TestWebPage(t *testing.T) {
	if os.Getenv("LOADLINE_SLOW") == "" {
		t.Skip("takes a minute, and two browsers: set LOADLINE_SLOW")
	}
	programs := build(t)
	s := openStack(t, programs)
	startConduit(t, s, programs)
	url := fmt.Sprintf("http://127.0.0.1:%d", s.Ports().App())
	conn, err := pgx.Connect(t.Context(), s.DatabaseURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(t.Context()) })

	ann, bob := openWindow(t, url, "ann"), openWindow(t, url, "bob")
	ann.shows(t, "#/new", "Write")
	ann.submit(t, ".sheet", map[string]string{
		"title": "How to keep two windows in step", "description": "What one reader sees of another, and when.", "tags": "realtime, postgres",
		"body": "A comment is written in one window, and is there in the other before its author has looked up.\n\nThat is easy while nothing fails. " +
			"What is shown here is the rest: an instance dies, a connection ends, and what was said meanwhile comes once, and in order.",
	})
	ann.sees(t, ".reading h1", "two windows")
	slug := strings.TrimPrefix(run[string](t, ann.browser, `location.hash`), "#/article/")
	bob.shows(t, "#/article/"+slug, "two windows")

	bob.comments(t, "It works here. <b>No markup</b> & no surprises.")
	ann.sees(t, "#comments", "<b>No markup</b> & no surprises.")
	ann.sees(t, "#unread", "1")
	bob.comments(t, "This one I regret.")
	ann.sees(t, "#comments", "I regret")
	ann.sees(t, "#unread", "2")
	run[bool](t, bob.browser, `document.querySelector("#comments li button").click(), true`)
	ann.misses(t, "#comments", "I regret")
	run[bool](t, bob.browser, `document.querySelector(".favourite").click(), true`)
	ann.sees(t, "#notices", "likes")
	ann.sees(t, "#unread", "2") // the notification of the comment has gone with it
	run[bool](t, ann.browser, `document.querySelector(".bell").click(), true`)
	ann.shot(t, "web-bell.png")
	run[bool](t, ann.browser, `document.querySelector("#notices").hidePopover(), true`)

	token := login(t, url, "bob")

	// What is read after a publication is read again when that fails, and many at once are read together.
	run[bool](t, ann.browser, `window.fails = 1, window.readings = 0, window.fetched = fetch, window.fetch = (path, ...more) => {
		if (!String(path).includes("/notifications?")) return fetched(path, ...more);
		readings++;
		return fails-- > 0 ? Promise.reject(new TypeError("no")) : fetched(path, ...more);
	}, true`)
	const burst = 30
	for n := range burst {
		if err := write(url, token, slug, fmt.Sprintf("Quickly, number %d.", n+1)); err != nil {
			t.Fatal(err)
		}
	}
	ann.sees(t, "#unread", fmt.Sprint(2+burst))
	if readings := run[int](t, ann.browser, `readings`); readings < 2 || readings > burst*2/3 {
		t.Errorf("of %d notifications at once the list was read %d times, the first of which failed", burst, readings)
	}
	run[bool](t, ann.browser, `window.fetch = fetched, true`)

	// What another window has read is seen when this one is looked at.
	if err := act(http.MethodPut, url+"/api/notifications/read", login(t, url, "ann"), `{"notifications":{"upTo":1000000}}`); err != nil {
		t.Fatal(err)
	}
	ann.looks(t)
	ann.until(t, "what another window has read is read", func() bool { return run[bool](t, ann.browser, `document.querySelector("#unread").hidden`) })

	// A page that is asked for, answered late, and not wanted any more takes nothing from the one that is shown.
	run[bool](t, ann.browser, `window.late = 0, window.fetch = (path, ...more) =>
		String(path).endsWith("/articles/`+slug+`") && !late++ ? new Promise((yes) => setTimeout(yes, 1500)).then(() => fetched(path, ...more)).finally(() => late++) : fetched(path, ...more), true`)
	run[bool](t, ann.browser, `location.hash = "#/article/`+slug+`?again", true`)
	ann.until(t, "it is asked for", func() bool { return run[int](t, ann.browser, `late`) > 0 })
	run[bool](t, ann.browser, `location.hash = "#/article/`+slug+`", true`)
	ann.until(t, "both are answered", func() bool { return run[int](t, ann.browser, `late`) == 3 })
	bob.comments(t, "To the page that is shown.")
	ann.sees(t, "#comments", "To the page that is shown.")
	run[bool](t, ann.browser, `window.fetch = fetched, true`)

	// Another login in a browser is seen by its windows.
	for _, name := range []string{"bob", "ann"} {
		run[bool](t, ann.browser, `fetch("/web/login", {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify({user: {email: "`+name+`@example.com", password: "correct horse"}})}), true`)
		ann.sees(t, "#me", name)
		ann.sees(t, "form.comment", "as "+name)
		ann.until(t, "it is live", func() bool {
			return run[string](t, ann.browser, `document.querySelector("#live-state").dataset.state`) == "connected"
		})
	}

	// Another's channel is not to be heard.
	var annID int64
	if err := conn.QueryRow(t.Context(), "SELECT id FROM users WHERE username = 'ann'").Scan(&annID); err != nil {
		t.Fatal(err)
	}
	for _, w := range []*window{bob, ann} {
		run[bool](t, w.browser, `window.other = "", import("/realtime/realtime.js").then(({Realtime}) => { window.spy = new Realtime("/realtime"); spy.subscribe("user:`+fmt.Sprint(annID)+`", {refresh: () => other = "heard", onDenied: () => other = "denied"}); }), true`)
		want := map[*window]string{bob: "denied", ann: "heard"}[w]
		w.until(t, "its second connection is "+want, func() bool { return run[string](t, w.browser, `other`) == want })
	}

	// Each instance dies, with comments through the other.
	written := 0
	for _, dies := range []string{"app-1", "app-2"} {
		through := addressOf(t, s, map[string]string{"app-1": "app-2", "app-2": "app-1"}[dies])
		var writing sync.WaitGroup
		var failed atomic.Int64
		writing.Go(func() {
			for n := range 20 {
				if err := write(through, token, slug, fmt.Sprintf("Number %d, while %s dies.", n+1, dies)); err != nil {
					t.Log(err)
					failed.Add(1)
				}
				time.Sleep(50 * time.Millisecond)
			}
		})
		time.Sleep(300 * time.Millisecond)
		if _, err := s.AddFault(t.Context(), stack.Fault{Service: dies, Kind: stack.FaultKill}); err != nil {
			t.Fatal(err)
		}
		writing.Wait()
		written += 20 - int(failed.Load())
		for _, w := range []*window{ann, bob} {
			w.equals(t, conn, slug)
		}
		if err := s.ClearFaults(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if written < 30 {
		t.Errorf("only %d comments were written", written)
	}
	var unread int
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM notifications WHERE user_id = $1 AND NOT read", annID).Scan(&unread); err != nil {
		t.Fatal(err)
	}
	ann.sees(t, "#unread", fmt.Sprint(unread))
	reconnects := 0
	for _, w := range []*window{ann, bob} {
		stats := run[string](t, w.browser, `document.querySelector(".strip").innerText.replace(/\s+/g, " ")`)
		t.Logf("%s: %s", w.name, stats)
		reconnects += run[int](t, w.browser, `Number(document.querySelector("#live-reconnects").textContent)`)
	}
	if reconnects == 0 {
		t.Error("no window has been at an instance that died")
	}
	run[bool](t, ann.browser, `document.querySelector(".talk").scrollIntoView(), true`)
	ann.shot(t, "web.png")
	run[bool](t, ann.browser, `document.querySelector(".bell").click(), true`)
	ann.sees(t, "#notices", "has commented on")
	run[bool](t, ann.browser, `document.querySelector("#mark-read").click(), true`)
	ann.until(t, "all is read", func() bool { return run[bool](t, ann.browser, `document.querySelector("#unread").hidden`) })
	run[bool](t, ann.browser, `document.querySelector("#notices").hidePopover(), true`)

	if _, err := chromedp.Call(ann.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}}); err != nil {
		t.Fatal(err)
	}
	ann.do(t, chromedp.EmulateViewport(390, 844), chromedp.Sleep(time.Second))
	for _, hash := range []string{"#/article/" + slug, "#/new", "#/"} {
		ann.shows(t, hash, "")
		if wide := run[int](t, ann.browser, `document.documentElement.scrollWidth - innerWidth`); wide > 0 {
			t.Errorf("on a phone %s is %d pixels too wide", hash, wide)
		}
	}
	ann.shot(t, "web-phone.png")
	ann.shows(t, "#/article/"+slug, "two windows")

	// Who logs out hears no more of what is for him, by any of his connections; and still of what is for everybody.
	run[bool](t, ann.browser, `document.querySelector("#logout").click(), true`)
	ann.sees(t, "#account", "Log in")
	ann.until(t, "the other connection has ended", func() bool { return run[string](t, ann.browser, `spy.state`) == "closed" })
	ann.until(t, "the page is live again", func() bool {
		return run[string](t, ann.browser, `document.querySelector("#live-state").dataset.state`) == "connected"
	})
	bob.comments(t, "Are you still there?")
	ann.sees(t, "#comments", "Are you still there?")
	ann.equals(t, conn, slug)

	// Without Redis all read, and who wants to log in is told; with it, a visitor hears by the least of transports.
	for _, w := range []*window{ann, bob} {
		w.shows(t, "#/", "Latest")
	}
	if _, err := s.AddFault(t.Context(), stack.Fault{Service: "redis", Kind: stack.FaultKill}); err != nil {
		t.Fatal(err)
	}
	visitor := &window{openBrowser(t, url+"/?transports=poll#/login", "Failed to load resource", "WebSocket connection to"), "visitor"}
	visitor.sees(t, "h1", "Welcome")
	visitor.submit(t, ".sheet", map[string]string{"email": "bob@example.com", "password": "correct horse"})
	visitor.sees(t, ".problem", "Login is not possible at the moment")
	for _, w := range []*window{visitor, ann, bob} { // two of whom were connected
		w.shows(t, "#/article/"+slug, "two windows")
		w.equals(t, conn, slug)
	}
	if err := s.ClearFaults(t.Context()); err != nil {
		t.Fatal(err)
	}
	visitor.until(t, "it is live by polls", func() bool {
		return strings.Contains(visitor.text(t, "#live-state"), "LiveLong polling")
	})
	if err := write(url, token, slug, "Redis is back."); err != nil {
		t.Fatal(err)
	}
	for _, w := range []*window{visitor, ann, bob} {
		w.sees(t, "#comments", "Redis is back.")
		w.equals(t, conn, slug)
	}
}

// window is a browser of somebody's.
type window struct {
	*browser
	name string
}

// openWindow registers somebody in a browser of his own. Servers die here, of which browsers complain.
func openWindow(t *testing.T, url, name string) *window {
	t.Helper()
	w := &window{openBrowser(t, url+"/#/register", "Failed to load resource", "WebSocket connection to"), name}
	w.do(t, chromedp.EmulateViewport(1100, 900))
	w.sees(t, "h1", "Join")
	w.submit(t, ".sheet", map[string]string{"username": name, "email": name + "@example.com", "password": "correct horse"})
	w.sees(t, "#me", name)
	return w
}

// shows goes to a page and waits for it.
func (w *window) shows(t *testing.T, hash, title string) {
	t.Helper()
	run[bool](t, w.browser, `location.hash = `+jsString(hash)+`, true`)
	w.sees(t, "h1", title)
	w.until(t, hash+" is there", func() bool {
		return run[bool](t, w.browser, `!document.querySelector("main").hasAttribute("aria-busy")`)
	})
}

func (w *window) submit(t *testing.T, form string, values map[string]string) {
	t.Helper()
	text, err := json.Marshal(values)
	if err != nil {
		t.Fatal(err)
	}
	run[bool](t, w.browser, `(() => { const form = document.querySelector(`+jsString(form)+`); for (const [name, value] of Object.entries(`+string(text)+`)) form[name].value = value; form.requestSubmit(); return true; })()`)
}

func (w *window) comments(t *testing.T, text string) {
	t.Helper()
	run[bool](t, w.browser, `(() => { const form = document.querySelector("form.comment"); form.querySelector("textarea").value = `+jsString(text)+`; form.requestSubmit(); return true; })()`)
	w.sees(t, "#comments", text)
}

// looks is what a browser says when its window is shown again.
func (w *window) looks(t *testing.T) {
	t.Helper()
	run[bool](t, w.browser, `document.dispatchEvent(new Event("visibilitychange"))`)
}

func (w *window) until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for limit := time.Now().Add(time.Minute); !holds(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(limit) {
			w.shot(t, "failed.png")
			t.Fatalf("%s: within a minute it has not come that %s", w.name, what)
		}
	}
}

// misses waits until the text is gone.
func (w *window) misses(t *testing.T, of, text string) {
	t.Helper()
	w.until(t, of+" is without "+text, func() bool { return !strings.Contains(w.text(t, of), text) })
}

// equals waits until a page has the comments of the database, and fails if it has others or one twice.
func (w *window) equals(t *testing.T, conn *pgx.Conn, slug string) {
	t.Helper()
	rows, err := conn.Query(t.Context(), "SELECT c.id FROM comments AS c JOIN articles AS a ON a.id = c.article_id WHERE a.slug = $1 ORDER BY c.id DESC", slug)
	if err != nil {
		t.Fatal(err)
	}
	want, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		t.Fatal(err)
	}
	var got []int64
	for limit := time.Now().Add(time.Minute); time.Now().Before(limit); time.Sleep(100 * time.Millisecond) {
		got = run[[]int64](t, w.browser, `[...document.querySelectorAll("#comments > li")].map((row) => Number(row.id.replace("comment-", "")))`)
		if slices.Equal(got, want) {
			return
		}
		if unique := slices.Compact(slices.Sorted(slices.Values(got))); len(unique) != len(got) {
			t.Fatalf("%s sees %v: a comment is there twice", w.name, got)
		}
	}
	w.shot(t, "failed.png")
	t.Fatalf("%s sees the comments %v, and there are %v", w.name, got, want)
}

func addressOf(t *testing.T, s *stack.Stack, service string) string {
	t.Helper()
	for _, found := range s.Services() {
		if found.Name == service {
			return "http://" + found.Addr
		}
	}
	t.Fatalf("there is no %s", service)
	return ""
}

// login returns a token of the API.
func login(t *testing.T, url, name string) string {
	t.Helper()
	response, err := http.Post(url+"/api/users/login", "application/json", strings.NewReader(`{"user":{"email":"`+name+`@example.com","password":"correct horse"}}`))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var answer struct{ User struct{ Token string } }
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil || answer.User.Token == "" {
		t.Fatalf("login: %s %v", response.Status, err)
	}
	return answer.User.Token
}

// write writes a comment by the API.
func write(url, token, slug, text string) error {
	return act(http.MethodPost, url+"/api/articles/"+slug+"/comments", token, `{"comment":{"body":`+jsString(text)+`}}`)
}

// act does something by the API.
func act(method, url, token, body string) error {
	request, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Token "+token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("%s %s: %s", method, request.URL.Path, response.Status)
	}
	return nil
}
