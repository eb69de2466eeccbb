package realtime_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lxzan/gws"
	"github.com/redis/rueidis"

	"github.com/loadlinehq/loadline/internal/ratio"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
	"github.com/loadlinehq/loadline/realtime"
)

// serverEnv makes a process of this test a server: its memory is to be its own.
const serverEnv = "LOADLINE_BENCH_REALTIME"

func TestMain(m *testing.M) {
	if kind := os.Getenv(serverEnv); kind != "" {
		if err := serve(kind); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	m.Run()
}

func serve(kind string) error {
	mux := http.NewServeMux()
	switch kind {
	case "loadline":
		g, err := realtime.Open(context.Background(), realtime.Config{
			Authenticate: realtime.Anonymous, Handshakes: -1, Logger: slog.New(slog.DiscardHandler),
			Namespaces: map[string]realtime.Namespace{"c": {Subscribe: realtime.Anyone, History: 10, HistoryAge: time.Minute}},
		})
		if err != nil {
			return err
		}
		mux.Handle("/", g.Handler())
		mux.HandleFunc("POST /tell", func(w http.ResponseWriter, r *http.Request) {
			data, _ := io.ReadAll(r.Body)
			if err := g.Publish(r.Context(), realtime.Publication{Channel: realtime.Channel{Namespace: "c", Name: "all"}, Data: json.RawMessage(data)}); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
			}
		})
	case "gws":
		h := &peer{all: make(map[*gws.Conn]bool)}
		upgrader := gws.NewUpgrader(h, &gws.ServerOption{ReadBufferSize: 512})
		mux.HandleFunc("GET /websocket", func(w http.ResponseWriter, r *http.Request) {
			if c, err := upgrader.Upgrade(w, r); err == nil {
				go c.ReadLoop()
			}
		})
		mux.HandleFunc("POST /tell", func(_ http.ResponseWriter, r *http.Request) {
			data, _ := io.ReadAll(r.Body)
			h.tell(data)
		})
	}
	mux.HandleFunc("GET /memory", func(w http.ResponseWriter, _ *http.Request) {
		runtime.GC()
		debug.FreeOSMemory()
		statm, _ := os.ReadFile("/proc/self/statm")
		fmt.Fprint(w, strings.Fields(string(statm))[1])
	})
	mux.HandleFunc("GET /cpu", func(w http.ResponseWriter, _ *http.Request) {
		var u syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		fmt.Fprint(w, u.Utime.Nano()+u.Stime.Nano())
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	return http.Serve(listener, mux)
}

// peer sends what it is told to all.
type peer struct {
	gws.BuiltinEventHandler

	mu  sync.Mutex
	all map[*gws.Conn]bool
}

func (p *peer) OnOpen(c *gws.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all[c] = true
}

func (p *peer) OnClose(c *gws.Conn, _ error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.all, c)
}

func (p *peer) tell(data []byte) {
	broadcaster := gws.NewBroadcaster(gws.OpcodeText, data)
	defer broadcaster.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.all {
		_ = broadcaster.Broadcast(c)
	}
}

// server is a child process, and the connections to it.
type server struct {
	address string
	first   string // what a client sends when it has connected
	heard   chan time.Duration
	mu      sync.Mutex
	conns   []net.Conn
}

func start(b *testing.B, kind string) *server {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serverEnv+"="+kind)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	s := &server{address: strings.TrimSpace(line), heard: make(chan time.Duration, 100_000)}
	if kind == "loadline" {
		s.first = `{"id":1,"connect":{}}` + "\n" + `{"id":2,"subscribe":{"channel":"c:all"}}`
	}
	b.Cleanup(func() {
		for _, c := range s.conns {
			_ = c.Close()
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return s
}

func frame(text string) []byte {
	b := []byte{0x81}
	if len(text) < 126 {
		b = append(b, 0x80|byte(len(text)))
	} else {
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(len(text)))
	}
	return append(append(b, 0, 0, 0, 0), text...) // masked by nothing
}

// connect opens so many connections, and reads all that comes.
func (s *server) connect(b *testing.B, n int) {
	b.Helper()
	ready := make(chan error, n)
	places := make(chan bool, 64)
	for range n {
		places <- true
		go func() {
			ready <- s.connectOne()
			<-places
		}()
	}
	for range n {
		if err := <-ready; err != nil {
			b.Fatal(err)
		}
	}
}

func (s *server) connectOne() error {
	conn, err := net.Dial("tcp", s.address)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.conns = append(s.conns, conn)
	s.mu.Unlock()
	if _, err := io.WriteString(conn, "GET /websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"); err != nil {
		return err
	}
	r := bufio.NewReaderSize(conn, 1024)
	response, err := http.ReadResponse(r, nil)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusSwitchingProtocols {
		return errors.New(response.Status)
	}
	listens := make(chan error, 1)
	go s.read(conn, r, listens)
	if s.first == "" {
		return nil
	}
	if _, err := conn.Write(frame(s.first)); err != nil {
		return err
	}
	return <-listens
}

func (s *server) read(conn net.Conn, r *bufio.Reader, listens chan<- error) {
	var payload []byte
	for {
		var head [2]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			listens <- err
			return
		}
		n := int(head[1])
		if n == 126 {
			var long [2]byte
			if _, err := io.ReadFull(r, long[:]); err != nil {
				return
			}
			n = int(binary.BigEndian.Uint16(long[:]))
		}
		payload = slices.Grow(payload[:0], n)[:n]
		if _, err := io.ReadFull(r, payload); err != nil {
			return
		}
		now := time.Now().UnixNano()
		if i := bytes.Index(payload, []byte(`"at":`)); i >= 0 {
			text := payload[i+5:]
			if at, err := strconv.ParseInt(string(text[:bytes.IndexByte(text, '}')]), 10, 64); err == nil {
				s.heard <- time.Duration(now - at)
			}
			continue
		}
		if bytes.Contains(payload, []byte(`"id":2`)) {
			listens <- nil
		}
		if string(payload) == "{}" {
			_, _ = conn.Write(frame("{}"))
		}
	}
}

func (s *server) ask(b *testing.B, path string) int {
	b.Helper()
	response, err := http.Get("http://" + s.address + path)
	if err != nil {
		b.Fatal(err)
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	n, err := strconv.Atoi(string(text))
	if err != nil {
		b.Fatal(err)
	}
	return n
}

func (s *server) memory(b *testing.B) int { return s.ask(b, "/memory") * os.Getpagesize() }

// cpu is what the server has used of processors, user and system.
func (s *server) cpu(b *testing.B) time.Duration { return time.Duration(s.ask(b, "/cpu")) }

const messages = 3

// tell returns the median of how long some publications took to all clients.
func (s *server) tell(clients int) (time.Duration, error) {
	var took []time.Duration
	for range messages {
		body := fmt.Sprintf(`{"text":"a comment of some length, as people write them","at":%d}`, time.Now().UnixNano())
		response, err := http.Post("http://"+s.address+"/tell", "application/json", strings.NewReader(body))
		if err != nil {
			return 0, err
		}
		_ = response.Body.Close()
		limit := time.After(30 * time.Second)
		for range clients {
			select {
			case d := <-s.heard:
				took = append(took, d)
			case <-limit:
				return 0, fmt.Errorf("%d of %d have heard it within 30 s", len(took)%clients, clients)
			}
		}
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}

// What an idle connection that listens to a channel costs the gateway: its resident memory after a collection.
func BenchmarkIdleConnection(b *testing.B) {
	const connections, limit = 10_000, 20_000
	for b.Loop() {
		for _, kind := range []string{"loadline", "gws"} {
			s := start(b, kind)
			s.connect(b, 100) // what the first ones need is there for all
			before, cpu := s.memory(b), s.cpu(b)
			s.connect(b, connections-100)
			handshakes := s.cpu(b) - cpu
			each := (s.memory(b) - before) / (connections - 100)
			b.ReportMetric(float64(each), kind+"-B/conn")
			b.Logf("%s: %d bytes for each of %d connections; %v of a processor for each handshake", kind, each, connections, handshakes/(connections-100))
			if kind == "loadline" {
				cpu = s.cpu(b)
				time.Sleep(realtime.DefaultPing)
				b.Logf("%s: %v of a processor while all are idle for %v: one ping", kind, s.cpu(b)-cpu, realtime.DefaultPing)
			}
			if kind == "loadline" && each > limit {
				b.Errorf("a connection takes %d bytes, more than %d", each, limit)
			}
			for _, c := range s.conns {
				_ = c.Close()
			}
		}
	}
}

// How long a publication takes to 2,000 who listen, in the median.
func BenchmarkFanOut(b *testing.B) {
	const clients, limit = 2000, 1.6
	bare, ours := start(b, "gws"), start(b, "loadline")
	bare.connect(b, clients)
	ours.connect(b, clients)
	var r ratio.Result
	var cpu time.Duration
	for b.Loop() {
		var err error
		cpu = ours.cpu(b)
		r, err = ratio.Measure(30, func() (time.Duration, error) { return bare.tell(clients) }, func() (time.Duration, error) { return ours.tell(clients) })
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(r.Median, "ratio")
	b.Logf("%v of a processor for each delivery", (ours.cpu(b)-cpu)/(30*messages*clients))
	b.Logf("a publication to 2,000 / bare gws: %v, limit %.1f", r, limit)
	if r.Low > limit {
		b.Errorf("%v is above %.1f", r, limit)
	}
}

// What Redis takes of publications with history and an id, by one gateway that nobody listens to. Redis' own use of a processor is what bounds them.
func BenchmarkPublish(b *testing.B) {
	redis := stacktest.StartRedis(b)
	g, err := realtime.Open(b.Context(), realtime.Config{
		Redis: []string{"redis://" + redis.Address}, Authenticate: realtime.Anonymous, Logger: slog.New(slog.DiscardHandler),
		Namespaces: map[string]realtime.Namespace{"c": {Subscribe: realtime.Anyone, History: 10, HistoryAge: time.Minute}},
	})
	if err != nil {
		b.Fatal(err)
	}
	defer g.Close()
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{redis.Address}, DisableCache: true})
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	used := func() (seconds float64) {
		info, err := client.Do(b.Context(), client.B().Info().Section("cpu").Build()).ToString()
		if err != nil {
			b.Fatal(err)
		}
		for line := range strings.Lines(info) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
			if name == "used_cpu_user" || name == "used_cpu_sys" {
				part, _ := strconv.ParseFloat(value, 64)
				seconds += part
			}
		}
		return seconds
	}
	var n atomic.Int64
	before := used()
	b.SetParallelism(32)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			i := n.Add(1)
			c := realtime.Channel{Namespace: "c", Name: strconv.FormatInt(i%1000, 10)}
			if err := g.Publish(b.Context(), realtime.Publication{Channel: c, ID: strconv.FormatInt(i, 10), Data: "a comment of some length, as people write them"}); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric((used()-before)*1e9/float64(n.Load()), "redis-ns/op")
}
