package contract_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/internal/ratio"
	"github.com/loadlinehq/loadline/internal/stack"
)

// What telemetry costs: processor time of a process for the same requests, with metrics, all traces recorded, a tenth and the failed and slow ones of them kept, and their lines, by
// one without any of it.
func BenchmarkTelemetry(b *testing.B) {
	bin := b.TempDir()
	for program, module := range map[string]string{"loadline": "../../..", "conduit": ".."} {
		build := exec.Command("go", "build", "-o", filepath.Join(bin, program), "./cmd/"+program)
		build.Dir = module
		if out, err := build.CombinedOutput(); err != nil {
			b.Fatalf("build %s: %v\n%s", program, err, out)
		}
	}
	// Each has servers of its own: what follows from writes and views is work of the one that was asked.
	without, with := serveConduit(b, bin, "CONDUIT_TELEMETRY=false"), serveConduit(b, bin, "LOADLINE_ADMIN=127.0.0.1:0")
	var r ratio.Result
	for b.Loop() {
		var err error
		if r, err = ratio.Measure(30, with.requests, without.requests); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(r.Median, "ratio")
	b.Logf("requests per CPU second with telemetry / without: %v, limit 0.93", r)
	if r.High < 0.93 {
		b.Errorf("%v is below 0.93", r)
	}
}

const callers = 4

// served is a process of Conduit.
type served struct {
	url    string
	pid    int
	client http.Client
	token  string
	slugs  []string
}

func serveConduit(b *testing.B, bin, setting string) *served {
	b.Helper()
	s, err := stack.Open(b.Context(), stack.Config{
		Dir: filepath.Join(b.TempDir(), "stack"), PortBase: stack.AnyPortBase, Replicas: 1, DisableSync: true, NATSCommand: []string{filepath.Join(bin, "loadline"), "nats-server"},
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		s.Kill()
		if err := stack.Wipe(s.Dir()); err != nil {
			b.Error(err)
		}
	})
	secret, err := s.Secret()
	if err != nil {
		b.Fatal(err)
	}
	env := append(append(os.Environ(), s.Env()...), "CONDUIT_JWT_SECRET="+secret, manyRequests, setting)
	program := filepath.Join(bin, "conduit")
	for _, setup := range []string{"migrate", "seed"} {
		cmd := exec.Command(program, setup)
		cmd.Env = env
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%s: %v\n%s", setup, err, out)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	_, port, _ := net.SplitHostPort(addr)
	cmd := exec.Command(program, "serve")
	cmd.Env = append(env, "PORT="+port)
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	c := &served{url: "http://" + addr, pid: cmd.Process.Pid, client: http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: callers}, Timeout: 10 * time.Second}}
	for limit := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		response, err := c.client.Get(c.url + "/readyz")
		if err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				c.login(b)
				return c
			}
		}
		if time.Now().After(limit) {
			b.Fatalf("conduit is not ready: %v\n%s", err, log.String())
		}
	}
}

// login registers a user, and looks for articles.
func (c *served) login(b *testing.B) {
	b.Helper()
	var user struct{ User struct{ Token string } }
	name := "cost" + strconv.FormatUint(rand.Uint64(), 36)
	if err := c.ask(http.MethodPost, "/api/users", `{"user":{"username":"`+name+`","email":"`+name+`@example.com","password":"correct horse"}}`, &user); err != nil {
		b.Fatal(err)
	}
	c.token = user.User.Token
	var list struct{ Articles []struct{ Slug string } }
	if err := c.ask(http.MethodGet, "/api/articles?limit=50", "", &list); err != nil || len(list.Articles) == 0 {
		b.Fatalf("%d articles: %v", len(list.Articles), err)
	}
	for _, a := range list.Articles {
		c.slugs = append(c.slugs, a.Slug)
	}
}

func (c *served) ask(method, path, body string, into any) error {
	request, err := http.NewRequest(method, c.url+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		request.Header.Set("Authorization", "Token "+c.token)
	}
	response, err := c.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("%s %s: %s", method, path, response.Status)
	}
	return json.NewDecoder(response.Body).Decode(into)
}

// requests returns the processor time of what users do. One of ten requests is a comment.
func (c *served) requests() (time.Duration, error) {
	const each = 200
	before, err := processorTime(c.pid)
	if err != nil {
		return 0, err
	}
	var wait sync.WaitGroup
	errs := make(chan error, callers)
	for n := range callers {
		random := rand.New(rand.NewPCG(uint64(n), 1)) // the same of each process
		wait.Go(func() {
			for range each {
				article := "/api/articles/" + c.slugs[random.IntN(len(c.slugs))]
				method, path, body := http.MethodGet, fmt.Sprintf("/api/articles?limit=10&offset=%d", random.IntN(200)), ""
				switch what := random.IntN(10); {
				case what == 0:
					path = "/api/tags"
				case what == 1:
					path = "/api/articles/feed"
				case what < 4:
					path = article + "/comments"
				case what < 7:
					path = article
				case what == 7:
					method, path, body = http.MethodPost, article+"/comments", `{"comment":{"body":"Well"}}`
				}
				if err := c.ask(method, path, body, &struct{}{}); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wait.Wait()
	close(errs)
	if err := <-errs; err != nil {
		return 0, err
	}
	after, err := processorTime(c.pid)
	return after - before, err
}

// processorTime is that of all threads, in nanoseconds of the scheduler: that of /proc/pid/stat is counted in ticks.
func processorTime(pid int) (total time.Duration, err error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(threads) == 0 {
		return 0, errors.Join(err, errors.New("there is no /proc/pid/task/*/schedstat"))
	}
	for _, path := range threads {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		on, _, _ := strings.Cut(string(text), " ")
		ns, err := strconv.ParseInt(on, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		total += time.Duration(ns)
	}
	return total, nil
}
