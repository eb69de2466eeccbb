package stack

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// Ping asks a service of any role but PostgreSQL's whether it answers. A paused or
// hung process still accepts connections, so it has to say something.
func Ping(ctx context.Context, service Service) error {
	switch service.Role {
	case "redis":
		return converse(ctx, service.Addr, "PING\r\n", "+PONG")
	case "nats":
		return converse(ctx, service.Addr, "", "INFO ") // the server speaks first
	case "app":
		return askReady(ctx, service.Addr)
	default:
		return fmt.Errorf("role %s cannot be asked", service.Role)
	}
}

// converse dials, sends a line, and expects a line that begins as given.
func converse(ctx context.Context, addr, send, want string) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if _, err := io.WriteString(conn, send); err != nil {
		return err
	}
	got, err := bufio.NewReader(io.LimitReader(conn, 32<<10)).ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(got, want) {
		return fmt.Errorf("answers %q", strings.TrimSpace(got))
	}
	return nil
}

// readyClient keeps no connections: each question goes to a process that may have
// been replaced since the last.
var readyClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func askReady(ctx context.Context, addr string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", nil)
	if err != nil {
		return err
	}
	response, err := readyClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusServiceUnavailable {
		body, _ := io.ReadAll(io.LimitReader(response.Body, 512))
		return fmt.Errorf("answers /readyz with 503: %s", body)
	}
	return nil
}
