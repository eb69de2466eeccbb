package contract_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/examples/conduit/contract"
	"github.com/loadlinehq/loadline/internal/stack"
	"github.com/loadlinehq/loadline/internal/stack/faultproxy"
)

// Faults drawn over all kinds and services are applied to the running application
// under load, several at a time, and undone. Afterwards it keeps its contract, each has been
// told once of what concerns him and is in the database, and nothing has leaked. It is four faults, and with LOADLINE_SLOW a hundred, in which
// every kind comes at least five times.
func TestFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers; skipped by -short")
	}
	count, each := 4, 0
	slow := os.Getenv("LOADLINE_SLOW") != ""
	if slow {
		count, each = 100, 5
	}
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("LOADLINE_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("LOADLINE_SEED=%d draws the same faults", seed)

	programs := build(t)
	before := held(t)
	s := openStack(t, programs)
	secret := startConduit(t, s, programs)
	url := fmt.Sprintf("http://127.0.0.1:%d", s.Ports().App())
	cast := newCast(t, url)
	started := heldWithoutApp(t, s)

	startsWithout(t, s, "redis", "nats")

	stopLoad := startLoad(t, url, cast)
	d := &drawing{t: t, stack: s, random: rand.New(rand.NewPCG(seed, 1)), applied: make(map[stack.FaultKind]int)}
	d.run(count, each)
	ended := time.Now()
	report := stopLoad()
	step := report.Steps[0]
	t.Logf("applied and undone: %v; of %d arrivals under load %d ended well, %d failed", d.applied, step.Sent, step.Good, step.Failed)
	if slow && step.Good < step.Sent/10 || step.Good == 0 {
		t.Errorf("only %d of %d arrivals ended well: that is no load", step.Good, step.Sent)
	}
	recovers(t, url)

	for _, service := range s.Services() {
		if service.State != stack.Ready {
			t.Errorf("%s is %s", service.Name, service.State)
		}
	}
	target := contract.Target{JWTSecret: secret}
	for _, service := range s.Services() {
		if service.Role == "app" {
			target.URLs = append(target.URLs, "http://"+service.Addr)
		}
	}
	t.Run("contract", func(t *testing.T) { contract.Run(t, target) })
	cast.mustBeTold(t, s.DatabaseURL(), ended, slow)
	killApp(t, s)
	started.mustHold(t, "after the faults, without the application,")
	s.Close(t.Context())
	before.mustHold(t, "after the stack")
	if mounts, err := os.ReadFile("/proc/self/mounts"); err == nil && strings.Contains(string(mounts), s.Dir()) {
		t.Error("something is still mounted in the stack's directory")
	}
}

// startsWithout: an application starts while some servers are away.
func startsWithout(t *testing.T, s *stack.Stack, away ...string) {
	t.Helper()
	for _, service := range away {
		if _, err := s.AddFault(t.Context(), stack.Fault{Service: service, Kind: stack.FaultKill}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.AddFault(t.Context(), stack.Fault{Service: "app-1", Kind: stack.FaultRestart}); err != nil {
		t.Errorf("without %v: %v", away, err)
	}
	if err := s.ClearFaults(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// recovers waits until a user can register again, once per instance: on a busy machine all reconnect at one time, which takes a while.
func recovers(t *testing.T, url string) {
	t.Helper()
	began := time.Now()
	for n, done := 0, 0; done < 4; n++ {
		body := fmt.Sprintf(`{"user": {"username": "back%d", "email": "back%d@example.com", "password": "correct horse"}}`, n, n)
		response, err := http.Post(url+"/api/users", "application/json", strings.NewReader(body))
		if err == nil {
			_ = response.Body.Close()
		}
		if err == nil && response.StatusCode == http.StatusCreated {
			done++
			continue
		}
		if done = 0; time.Since(began) > time.Minute {
			t.Fatalf("a minute after the faults nobody can register: %v", err)
		}
		time.Sleep(200 * time.Millisecond)
	}
	http.DefaultClient.CloseIdleConnections()
	t.Logf("users can register %s after the faults", time.Since(began).Round(100*time.Millisecond))
}

// drawing draws faults, and keeps up to three at a time.
type drawing struct {
	t       *testing.T
	stack   *stack.Stack
	random  *rand.Rand
	active  []stack.ActiveFault
	applied map[stack.FaultKind]int
}

func (d *drawing) run(count, each int) {
	kinds := stack.FaultKinds()
	unsupported := make(map[stack.FaultKind]bool)
	began := time.Now()
	for done, tries := 0, 0; ; tries++ {
		rare := slices.DeleteFunc(slices.Clone(kinds), func(k stack.FaultHelp) bool { return d.applied[k.Kind] >= each || unsupported[k.Kind] })
		if done >= count && len(rare) == 0 {
			break
		}
		if tries > 20*count {
			d.t.Fatalf("only %d of %d faults could be applied", done, count)
		}
		kind := kinds[d.random.IntN(len(kinds))]
		if len(rare) > 0 && (done >= count || d.random.IntN(2) == 0) {
			kind = rare[d.random.IntN(len(rare))]
		}
		if unsupported[kind.Kind] {
			continue
		}
		f, err := d.stack.AddFault(d.t.Context(), d.fault(kind))
		switch {
		case errors.Is(err, stack.ErrUnsupported):
			d.t.Log(err)
			unsupported[kind.Kind] = true
		case errors.Is(err, stack.ErrConflict):
			d.undo(0) // two that do not go together
		case err != nil:
			// Another fault is in the way: a replica cannot be made anew from a primary
			// that is away. It has to be undone completely, though.
			d.t.Logf("not applied: %v", err)
			d.undo(0)
		default:
			done++
			d.applied[kind.Kind]++
			if f.Phase == stack.FaultActive {
				d.active = append(d.active, f)
			}
			time.Sleep(time.Duration(d.random.IntN(300)) * time.Millisecond)
		}
		d.undo(2)
		if done%10 == 0 && err == nil {
			d.t.Logf("%d faults in %s", done, time.Since(began).Round(time.Second))
		}
	}
	if err := d.stack.ClearFaults(d.t.Context()); err != nil {
		d.t.Fatalf("not undone: %v", err)
	}
	for kind := range unsupported {
		if os.Geteuid() == 0 && kind != stack.FaultDiskFull {
			d.t.Errorf("%s is not supported", kind)
		}
	}
}

// undo undoes faults in any order until no more than some are left.
func (d *drawing) undo(left int) {
	for tries := 0; len(d.active) > left && tries < 10; tries++ {
		i := d.random.IntN(len(d.active))
		if err := d.stack.RemoveFault(d.t.Context(), d.active[i].ID); err != nil {
			d.t.Logf("not undone yet: %v", err)
			if err := d.stack.ClearFaults(d.t.Context()); err != nil {
				d.t.Fatalf("not undone: %v", err)
			}
			d.active = nil
			return
		}
		d.active = slices.Delete(d.active, i, i+1)
	}
}

func (d *drawing) fault(kind stack.FaultHelp) stack.Fault {
	services := slices.DeleteFunc(d.stack.Services(), func(s stack.Service) bool {
		return kind.Services != "any" && !slices.Contains(strings.Split(kind.Services, ", "), s.Role)
	})
	f := stack.Fault{Service: services[d.random.IntN(len(services))].Name, Kind: kind.Kind}
	directions := []faultproxy.Direction{faultproxy.ToServer, faultproxy.ToClient}
	switch kind.Kind {
	case stack.FaultLatency:
		f.Delay, f.Jitter = 20*time.Millisecond, 10*time.Millisecond
	case stack.FaultBandwidth:
		f.BytesPerSecond = 100_000
	case stack.FaultCut:
		f.Direction = directions[d.random.IntN(2)]
	case stack.FaultLag:
		f.Delay = time.Second
	}
	return f
}

// holding is what may leak.
type holding struct{ goroutines, descriptors, children int }

// heldWithoutApp counts what the stack has when no application has a connection
// through it. With one it is no constant: its pools hold what the last burst needed.
func heldWithoutApp(t *testing.T, s *stack.Stack) holding {
	t.Helper()
	killApp(t, s)
	h := held(t)
	for quiet := time.Now(); time.Since(quiet) < time.Second; time.Sleep(50 * time.Millisecond) {
		if now := held(t); now != h {
			h, quiet = now, time.Now()
		}
	}
	if err := s.ClearFaults(t.Context()); err != nil {
		t.Fatal(err)
	}
	return h
}

func killApp(t *testing.T, s *stack.Stack) {
	t.Helper()
	for _, service := range s.Services() {
		if service.Role != "app" {
			continue
		}
		if _, err := s.AddFault(t.Context(), stack.Fault{Service: service.Name, Kind: stack.FaultKill}); err != nil {
			t.Fatal(err)
		}
	}
}

// mustHold waits until there is no more than there was.
func (h holding) mustHold(t *testing.T, when string) {
	t.Helper()
	var now holding
	for limit := time.Now().Add(20 * time.Second); time.Now().Before(limit); time.Sleep(100 * time.Millisecond) {
		if now = held(t); now.goroutines <= h.goroutines && now.descriptors <= h.descriptors && now.children <= h.children {
			return
		}
	}
	stacks := make([]byte, 1<<20)
	t.Errorf("%s there is %+v, before there was %+v\n%s", when, now, h, stacks[:runtime.Stack(stacks, true)])
}

// held counts what this process has now, and its children, zombies among them.
func held(t *testing.T) holding {
	t.Helper()
	descriptors, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("needs /proc")
	}
	h := holding{goroutines: runtime.NumGoroutine(), descriptors: len(descriptors)}
	processes, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range processes {
		// pid (name) state ppid; the name may hold anything.
		if text, err := os.ReadFile(path); err == nil {
			fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
			if len(fields) > 1 && fields[1] == strconv.Itoa(os.Getpid()) {
				h.children++
			}
		}
	}
	return h
}

func build(t *testing.T) string {
	t.Helper()
	bin := t.TempDir()
	for program, module := range map[string]string{"loadline": "../../..", "conduit": ".."} {
		build := exec.Command("go", "build", "-o", filepath.Join(bin, program), "./cmd/"+program)
		build.Dir = module
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", program, err, out)
		}
	}
	return bin
}

func openStack(t *testing.T, bin string) *stack.Stack {
	t.Helper()
	s, err := stack.Open(t.Context(), stack.Config{
		Dir: filepath.Join(t.TempDir(), "stack"), PortBase: stack.AnyPortBase, Replicas: 2, DisableSync: true,
		NATSCommand: []string{filepath.Join(bin, "loadline"), "nats-server"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, service := range s.Services() {
				text, _ := os.ReadFile(service.Log)
				lines := strings.Split(strings.TrimSpace(string(text)), "\n")
				t.Logf("%s is %s; the end of its log:\n%s", service.Name, service.State, strings.Join(lines[max(0, len(lines)-15):], "\n"))
			}
		}
		s.Kill()
		if err := stack.Wipe(s.Dir()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// startConduit runs two instances, and returns what they sign tokens with.
func startConduit(t *testing.T, s *stack.Stack, bin string) string {
	t.Helper()
	secret, err := s.Secret()
	if err != nil {
		t.Fatal(err)
	}
	conduit := filepath.Join(bin, "conduit")
	t.Log(manyRequests)
	err = s.StartApp(t.Context(), stack.App{
		Setup: [][]string{{conduit, "migrate"}, {conduit, "seed"}}, Command: []string{conduit, "serve"}, Instances: 2,
		Env: []string{"CONDUIT_JWT_SECRET=" + secret, "CONDUIT_INSTANCES=2", manyRequests},
	})
	if err != nil {
		t.Fatal(err)
	}
	return secret
}
