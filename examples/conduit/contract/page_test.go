package contract_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/loadlinehq/loadline/internal/stack"
	"github.com/loadlinehq/loadline/internal/stack/adminport"
	"github.com/loadlinehq/loadline/telemetry/live"
)

// The live page, in a browser, while users arrive and servers fail: it names the hop that is in the way, shows a trace by keyboard, and fits a phone in the dark.
// LOADLINE_SCREENSHOTS is a directory for what was seen.
func TestLivePage(t *testing.T) {
	if os.Getenv("LOADLINE_SLOW") == "" {
		t.Skip("takes two minutes, and a browser: set LOADLINE_SLOW")
	}
	programs := build(t)
	s := openStack(t, programs)
	startConduit(t, s, programs)
	url := fmt.Sprintf("http://127.0.0.1:%d", s.Ports().App())
	monitor := adminport.NewMonitor(s, url, "")
	shown, err := monitor.Page()
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(adminport.Handler(monitor, shown))
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() { _ = monitor.Run(ctx) }) // nil: it ends when asked to
	t.Cleanup(func() {
		cancel()
		shown.Close()
		server.Close()
		watching.Wait()
	})
	stopLoad := startLoad(t, url, newCast(t, url))
	browser := openBrowser(t, server.URL+live.Path)
	browser.sees(t, "#connection", "live")
	time.Sleep(15 * time.Second) // for charts that show something
	browser.shot(t, "live.png")
	if title := browser.text(t, "#tightest"); !strings.Contains(title, "% of its") {
		t.Errorf("nothing fails, and the page says %q", title)
	}

	for _, c := range []struct {
		hop, says string
		fault     stack.Fault
	}{
		{"cache", "Cache: ", stack.Fault{Service: "redis", Kind: stack.FaultStall}},
		{"broker", "Broker: ", stack.Fault{Service: "nats", Kind: stack.FaultPause}},
		{"primary", "Primary: it does not answer", stack.Fault{Service: "primary", Kind: stack.FaultPause}},
		{"replicas", "Replicas: ", stack.Fault{Service: "replica-1", Kind: stack.FaultKill}},
	} {
		active, err := s.AddFault(t.Context(), c.fault)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		browser.sees(t, "#tightest", c.says)
		t.Logf("%s: named after %v: %s", active.Fault, time.Since(began).Round(100*time.Millisecond), browser.text(t, "#tightest"))
		if got := browser.text(t, "#path li.tightest h3"); !strings.HasPrefix(strings.ToLower(got), c.hop) {
			t.Errorf("%s: the tightest is %q", active.Fault, got)
		}
		browser.sees(t, "#faults", active.Service)
		if c.hop == "primary" {
			browser.shot(t, "live-fault.png")
		}
		if c.hop == "primary" { // undone on the page, by keyboard
			browser.do(t, chromedp.Focus("#faults button"), chromedp.KeyEvent(kb.Enter))
		} else if err := s.ClearFaults(t.Context()); err != nil {
			t.Fatal(err)
		}
		browser.sees(t, "#tightest", "% of its")
	}
	if n := len(s.Faults()); n != 0 {
		t.Errorf("%d faults are active", n)
	}

	// A trace of a write, with its SQL and lines.
	if !run[bool](t, browser, `const write = [...document.querySelectorAll("#traces button")].find(b => b.textContent.includes("POST /api/articles")); write?.focus(); write !== undefined`) {
		t.Error("the primary stood still, and no write is among the traces")
	}
	browser.do(t, chromedp.KeyEvent(kb.Enter))
	browser.sees(t, "#traces .trace:not([hidden])", "Logged")
	run[bool](t, browser, `document.querySelectorAll("#traces .trace details").forEach(d => d.open = d.querySelector("pre") !== null), true`)
	browser.do(t, chromedp.ScrollIntoView("#traces-title"))
	browser.shot(t, "live-trace.png")

	if _, err := chromedp.Call(browser.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}}); err != nil {
		t.Fatal(err)
	}
	browser.do(t, chromedp.EmulateViewport(390, 844), chromedp.Sleep(2*time.Second))
	if wide := run[int](t, browser, `document.documentElement.scrollWidth - innerWidth`); wide > 0 {
		t.Errorf("on a phone the page is %d pixels too wide", wide)
	}
	browser.shot(t, "live-phone.png")
	stopLoad()
}

// browser shows one page. What it complains of, such as what the page's policy forbids, is an error, unless it has a piece of what is tolerated.
type browser struct {
	ctx   context.Context
	shots string
}

func openBrowser(t *testing.T, url string, tolerated ...string) *browser {
	t.Helper()
	program := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			program = found
			break
		}
	}
	if program == "" {
		t.Skip("there is no Chromium: apt-get install chromium")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program), chromedp.NoSandbox, chromedp.WindowSize(1280, 1400), chromedp.Flag("no-proxy-server", true))
	allocated, endAll := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, end := chromedp.NewContext(allocated)
	b := &browser{ctx: ctx, shots: os.Getenv("LOADLINE_SCREENSHOTS")}
	if err := chromedp.Do(ctx); err != nil { // it starts, and ends with this context
		t.Fatal(err)
	}
	messages := chromedp.Console(ctx)
	var reading sync.WaitGroup
	reading.Go(func() {
		for message, err := range messages {
			if err != nil {
				return // it has been closed
			}
			expected := slices.ContainsFunc(tolerated, func(s string) bool { return strings.Contains(message.Text, s) })
			if (message.Type == chromedp.ConsoleError || message.IsException()) && !expected {
				t.Errorf("the browser says: %s %s", message.Text, message.URL)
			}
		}
	})
	t.Cleanup(func() {
		end()
		endAll()
		reading.Wait()
	})
	b.do(t, chromedp.Navigate(url))
	return b
}

func (b *browser) do(t *testing.T, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		t.Fatal(err)
	}
}

// run is an expression's value.
func run[V any](t *testing.T, b *browser, expression string) V {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[V](expression))
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func (b *browser) text(t *testing.T, of string) string {
	t.Helper()
	return run[string](t, b, `document.querySelector(`+jsString(of)+`)?.textContent ?? ""`)
}

func jsString(s string) string {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string
	}
	return string(text)
}

// sees waits until the text is there.
func (b *browser) sees(t *testing.T, of, text string) {
	t.Helper()
	last := ""
	for limit := time.Now().Add(time.Minute); time.Now().Before(limit); time.Sleep(100 * time.Millisecond) {
		if last = b.text(t, of); strings.Contains(last, text) {
			return
		}
	}
	b.shot(t, "failed.png")
	t.Fatalf("within a minute %s has not said %q, but %q", of, text, last)
}

// shot keeps what the browser shows.
func (b *browser) shot(t *testing.T, name string) {
	t.Helper()
	if b.shots == "" {
		return
	}
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	image, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Error(err)
		return
	}
	if err := os.WriteFile(filepath.Join(b.shots, name), image, 0o644); err != nil {
		t.Error(err)
	}
}
