package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"time"
)

type healthCmd struct{}

// healthLimit is below what containers give a check.
const healthLimit = 2 * time.Second

// Run asks the instance that was configured as this is whether it is ready: for images without a shell.
func (c *healthCmd) Run(ctx context.Context, app *commands) error {
	s := struct {
		HTTP serverConfig `yaml:"http"`
	}{defaultServerConfig()}
	if _, err := app.load(&s); err != nil {
		return err
	}
	host := s.HTTP.Host
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1" // who listens everywhere is here, too
	}
	return askReady(ctx, net.JoinHostPort(host, fmt.Sprint(s.HTTP.Port)))
}

func askReady(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, healthLimit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return cmp.Or(ctx.Err(), err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s is not ready: %s", addr, response.Status)
	}
	return nil
}
