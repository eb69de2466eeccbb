package db_test

import (
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// tamper is a proxy that looks at each message of the server. Hook returns what to send
// instead, and whether to cut then.
type tamper struct {
	l        net.Listener
	target   string
	mu       sync.Mutex
	toClient func(typ byte, body []byte) ([]byte, bool)
	toServer func(b []byte) bool // false: stall
	accepted atomic.Int64
	refuse   atomic.Bool
	conns    []net.Conn
	wg       sync.WaitGroup
}

func tampered(t testing.TB, dsn string) (string, *tamper) {
	u, _ := url.Parse(dsn)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &tamper{l: l, target: u.Host}
	u.Host = l.Addr().String()
	p.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.accepted.Add(1)
			if p.refuse.Load() {
				c.Close()
				continue
			}
			s, err := net.Dial("tcp", p.target)
			if err != nil {
				c.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, c, s)
			p.mu.Unlock()
			p.wg.Go(func() {
				buf := make([]byte, 65536)
				for {
					n, err := c.Read(buf)
					p.mu.Lock()
					h := p.toServer
					p.mu.Unlock()
					if n > 0 && (h == nil || h(buf[:n])) {
						s.Write(buf[:n])
					}
					if err != nil {
						s.Close()
						return
					}
				}
			})
			p.wg.Go(func() {
				defer c.Close()
				defer s.Close()
				for {
					head := make([]byte, 5)
					if _, err := io.ReadFull(s, head); err != nil {
						return
					}
					body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
					if _, err := io.ReadFull(s, body); err != nil {
						return
					}
					p.mu.Lock()
					h := p.toClient
					p.mu.Unlock()
					out, cut := append(head, body...), false
					if h != nil {
						if o, k := h(head[0], body); o != nil || k {
							out, cut = o, k
						}
					}
					if len(out) > 0 {
						c.Write(out)
					}
					if cut {
						time.Sleep(20 * time.Millisecond)
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); p.cutAll(); p.wg.Wait() })
	return u.String(), p
}

func (p *tamper) cutAll() {
	p.mu.Lock()
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
	p.mu.Unlock()
}

func (p *tamper) set(h func(byte, []byte) ([]byte, bool)) { p.mu.Lock(); p.toClient = h; p.mu.Unlock() }

func count(t testing.TB, dsn, where string) (n int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM t WHERE "+where).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
