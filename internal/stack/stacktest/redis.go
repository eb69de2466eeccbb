package stacktest

import (
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Redis is a server of a test's own, without a proxy, which it may kill, pause and start again.
type Redis struct {
	// Address is host and port.
	Address string

	t       testing.TB
	process *exec.Cmd
}

// StartRedis starts one, with more arguments for redis-server; a file and --sentinel make it a Sentinel. It ends with
// the test.
func StartRedis(t testing.TB, args ...string) *Redis {
	t.Helper()
	if testing.Short() {
		t.Skip("stacktest: starts servers; skipped by -short")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &Redis{t: t, Address: listener.Addr().String()}
	listener.Close()
	r.Start(args...)
	t.Cleanup(r.Kill)
	return r
}

// Start starts it again, empty, where it was.
func (r *Redis) Start(args ...string) {
	r.t.Helper()
	_, port, _ := net.SplitHostPort(r.Address)
	settings := []string{"--bind", "127.0.0.1", "--port", port}
	if slices.Contains(args, "--sentinel") {
		settings, args = append(args[:1:1], settings...), args[1:] // its file comes first
	} else {
		settings = append(settings, "--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0")
	}
	r.process = exec.Command("redis-server", append(settings, args...)...)
	r.process.Dir = r.t.TempDir()
	r.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := r.process.Start(); err != nil {
		r.t.Fatal(err)
	}
	for limit := time.Now().Add(20 * time.Second); !r.answers(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			r.t.Fatal("stacktest: redis-server does not come, or another has its port")
		}
	}
}

// answers reports whether this process answers on its port, and not another.
func (r *Redis) answers() bool {
	conn, err := net.DialTimeout("tcp", r.Address, time.Second)
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := conn.Write([]byte("INFO server\r\n")); err != nil {
		return false
	}
	answer := make([]byte, 4096) // process_id is in the first lines
	n, _ := conn.Read(answer)
	return strings.Contains(string(answer[:n]), fmt.Sprintf("process_id:%d\r\n", r.process.Process.Pid))
}

// Kill ends it at once. It may have ended.
func (r *Redis) Kill() {
	_ = r.process.Process.Kill()
	_ = r.process.Wait()
}

// Pause stops it where it is, as a machine that hangs does, until Resume.
func (r *Redis) Pause() { r.signal(syscall.SIGSTOP) }

// Resume has it go on.
func (r *Redis) Resume() { r.signal(syscall.SIGCONT) }

func (r *Redis) signal(signal syscall.Signal) {
	r.t.Helper()
	if err := r.process.Process.Signal(signal); err != nil {
		r.t.Error(err)
	}
}
