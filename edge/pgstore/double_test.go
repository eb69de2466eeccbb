package pgstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/edge"
	"github.com/loadlinehq/loadline/edge/pgstore"
	"github.com/loadlinehq/loadline/internal/migrate"
	"github.com/loadlinehq/loadline/internal/stack"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

// DESIGN's no_double_effect: one key, 200 times in parallel over two instances, which are killed with kill -9 between the
// effect and its commit, and between the commit and the answer, and whose primary is killed and succeeded by
// its replica in the middle of it. There is one effect, and each that is answered has the same answer.
func TestNoDoubleEffect(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts servers; skipped by -short")
	}
	keys := 1
	if os.Getenv("LOADLINE_SLOW") != "" {
		keys = 8
	}
	s := stacktest.Own(t, stack.Config{Replicas: 1, DisableSync: true})
	primary, replica := urls(t, s)
	if _, err := migrate.Up(t.Context(), primary, migrate.Set{Name: "effect", Files: effect}, migrate.Set{Name: "idempotency", Files: pgstore.Migrations}); err != nil {
		t.Fatal(err)
	}
	router, err := db.Open(t.Context(), db.Config{Primary: primary, Replicas: []string{replica}, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer router.Close()
	ctx, stop := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	wait.Go(func() { _ = router.Run(ctx) })
	defer func() { stop(); wait.Wait() }()

	f := &fleet{t: t, args: []string{primary, replica}, deaths: make(map[string]int)}
	defer f.end()
	for range 2 {
		f.start()
	}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 100}}
	defer client.CloseIdleConnections()
	replays := 0
	for k := range keys {
		what := fmt.Sprint("order ", k)
		var failover sync.WaitGroup
		if k == keys-1 {
			waitForReplica(t, s)
			failover.Go(func() {
				time.Sleep(rand.N(300 * time.Millisecond))
				promote(t, s)
			})
		}
		var mu sync.Mutex
		answers := make(map[string]int)
		var clients sync.WaitGroup
		for range 200 {
			clients.Go(func() {
				for limit := time.Now().Add(90 * time.Second); time.Now().Before(limit); time.Sleep(rand.N(200 * time.Millisecond)) {
					body, replayed, err := order(client, f.address(), what, f.dies(k+1))
					if err != nil {
						continue
					}
					mu.Lock()
					answers[body]++
					if replayed {
						replays++
					}
					mu.Unlock()
					return
				}
				t.Error("no answer in 90 s")
			})
		}
		clients.Wait()
		failover.Wait()
		if len(answers) != 1 {
			t.Errorf("%s has the answers %v", what, answers)
		}
	}
	var effects, distinct int
	err = router.Write(t.Context()).QueryRow(t.Context(), "select count(*), count(distinct what) from effect").Scan(&effects, &distinct)
	if err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	t.Logf("%d keys, %d effects of %d; %d replays; instances died: %v", keys, effects, distinct, replays, f.deaths)
	if effects != keys || distinct != keys {
		t.Errorf("%d effects of %d keys", effects, distinct)
	}
	if replays == 0 || f.deaths["effect"] < 2*keys || f.deaths["answer"] < 2*keys {
		t.Errorf("%d replays, and instances died: %v: that is no test", replays, f.deaths)
	}
}

// effect has no constraint: a second one would be seen.
var effect = fstest.MapFS{"00001_effect.sql": {Data: []byte("-- +goose Up\nCREATE TABLE effect (id bigint GENERATED ALWAYS AS IDENTITY, what text NOT NULL);\n")}}

// order asks an instance, which dies at a point if it gets there.
func order(client *http.Client, address, what, dies string) (body string, replayed bool, err error) {
	r, err := http.NewRequest(http.MethodPost, "http://"+address+"/", strings.NewReader(what))
	if err != nil {
		return "", false, err
	}
	r.Header.Set("Idempotency-Key", what)
	r.Header.Set("Dies", dies)
	answer, err := client.Do(r)
	if err != nil {
		return "", false, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusCreated {
		err = errors.New(answer.Status)
	}
	return string(text), answer.Header.Get(edge.ReplayedHeader) != "", err
}

// waitForReplica has the primary wait for its replica from now on, so that a failover loses nothing.
func waitForReplica(t *testing.T, s *stack.Stack) {
	t.Helper()
	for _, service := range s.Services() {
		if service.Name != "primary" {
			continue
		}
		conn, err := pgx.Connect(t.Context(), stack.SuperuserURL(service.Direct))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(t.Context())
		for _, sql := range []string{"ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'", "SELECT pg_reload_conf()"} {
			if _, err := conn.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
		}
		for limit := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			var is bool
			if err := conn.QueryRow(t.Context(), "SELECT count(*) > 0 FROM pg_stat_replication WHERE sync_state = 'quorum'").Scan(&is); err != nil {
				t.Fatal(err)
			} else if is {
				return
			}
			if time.Now().After(limit) {
				t.Fatal("the replica is not waited for")
			}
		}
	}
}

func promote(t *testing.T, s *stack.Stack) {
	if _, err := s.AddFault(t.Context(), stack.Fault{Service: "primary", Kind: stack.FaultKill}); err != nil {
		t.Error(err)
	}
	if _, err := s.AddFault(t.Context(), stack.Fault{Service: "replica-1", Kind: stack.FaultPromote}); err != nil {
		t.Error(err)
	}
}

func urls(t *testing.T, s *stack.Stack) (primary, replica string) {
	t.Helper()
	return s.DatabaseURL(), s.ReplicaURLs()[0]
}

// fleet is the instances, each of which is succeeded by another when it dies.
type fleet struct {
	t    *testing.T
	args []string

	mu        sync.Mutex
	addresses []string
	running   []*exec.Cmd
	ended     bool
	deaths    map[string]int
	watching  sync.WaitGroup
}

func (f *fleet) start() {
	cmd := exec.Command(os.Args[0], append([]string{instance}, f.args...)...)
	cmd.Env = append(os.Environ(), "GORACE=halt_on_error=1 atexit_sleep_ms=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	said, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		f.t.Error(err)
		return
	}
	f.running = append(f.running, cmd)
	f.watching.Go(func() {
		var address, dies string
		_, _ = fmt.Fscanln(said, &address)
		f.mu.Lock()
		f.addresses = append(f.addresses, address)
		f.mu.Unlock()
		_, _ = fmt.Fscanln(said, &dies)
		_ = cmd.Wait()
		f.mu.Lock()
		defer f.mu.Unlock()
		for i, a := range f.addresses {
			if a == address {
				f.addresses = append(f.addresses[:i:i], f.addresses[i+1:]...)
				break
			}
		}
		if f.ended {
			return
		}
		if dies == "" {
			f.t.Errorf("an instance has ended by itself:\n%s", &stderr)
			return
		}
		f.deaths[dies]++
		f.start()
	})
}

// dies is where whoever comes to it dies, until each instance has died once for each key at each point.
func (f *fleet) dies(keys int) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, point := range []string{"effect", "answer"} {
		if f.deaths[point] < 2*keys {
			return point
		}
	}
	return ""
}

// address is that of an instance, if there is one.
func (f *fleet) address() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.addresses) == 0 {
		return "127.0.0.1:1"
	}
	return f.addresses[rand.IntN(len(f.addresses))]
}

func (f *fleet) end() {
	f.mu.Lock()
	f.ended = true
	for _, cmd := range f.running {
		_ = cmd.Process.Kill()
	}
	f.mu.Unlock()
	f.watching.Wait()
}

const instance = "idempotency-instance"

// serveInstance reports whether this process was an instance.
func serveInstance() bool {
	if len(os.Args) != 4 || os.Args[1] != instance {
		return false
	}
	if err := serve(os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}

func serve(primary, replica string) error {
	ctx := context.Background()
	router, err := db.Open(ctx, db.Config{Primary: primary, Replicas: []string{replica}, Logger: quiet})
	for limit := time.Now().Add(time.Minute); err != nil && time.Now().Before(limit); time.Sleep(100 * time.Millisecond) { // there may be no primary yet
		router, err = db.Open(ctx, db.Config{Primary: primary, Replicas: []string{replica}, Logger: quiet})
	}
	if err != nil {
		return err
	}
	go func() { _ = router.Run(ctx) }()
	store, err := pgstore.New(router, pgstore.Config{})
	if err != nil {
		return err
	}
	idempotent, err := edge.Idempotency(edge.IdempotencyConfig{Store: store, Principal: func(*http.Request) string { return "" }, Errors: edge.Errors{Log: quiet}})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	handler := idempotent(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		what, _ := io.ReadAll(r.Body)
		var id int64
		err := router.InTx(r.Context(), func(ctx context.Context, tx pgx.Tx) error {
			return tx.QueryRow(ctx, "insert into effect (what) values ($1) returning id", string(what)).Scan(&id)
		})
		if err != nil {
			edge.Errors{Log: quiet}.Answer(w, r, err)
			return
		}
		time.Sleep(rand.N(10 * time.Millisecond))
		if r.Header.Get("Dies") == "effect" {
			die("effect")
		}
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, "order %d", id)
	}))
	return http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(&dying{w, r.Header.Get("Dies") == "answer"}, r)
	}))
}

// dying ends the process when something is to be sent.
type dying struct {
	http.ResponseWriter
	dies bool
}

func (d *dying) WriteHeader(status int) {
	if d.dies && status == http.StatusCreated {
		die("answer")
	}
	d.ResponseWriter.WriteHeader(status)
}

func die(where string) {
	fmt.Println(where)
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}
