package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/loadlinehq/loadline/telemetry"
	"github.com/loadlinehq/loadline/telemetry/live"
)

type dashCmd struct {
	Instances []string `arg:"" help:"Admin ports of the instances, such as http://127.0.0.1:9464, or http://any:token@10.0.0.7:9464 where one needs a token."`
	Listen    string   `help:"Where to serve the page." default:"127.0.0.1:9465"`
	Token     string   `help:"What others than this machine must send to see it." env:"LOADLINE_DASH_TOKEN"`
	Instance  string   `name:"instance-token" help:"What the instances must be sent, where their URL has nothing." env:"LOADLINE_INSTANCE_TOKEN" placeholder:"TOKEN"`
	JSON      bool     `name:"json" help:"Print what the page shows now, and end."`
}

// withToken adds the token to a URL that has none: on the command line everybody sees it.
func (c *dashCmd) withToken(instance string) string {
	u, err := url.Parse(instance)
	if err != nil || u.User != nil || u.Host == "" || c.Instance == "" {
		return instance
	}
	u.User = url.UserPassword("loadline", c.Instance)
	return u.String()
}

// Run serves until ctx is done.
func (c *dashCmd) Run(ctx context.Context) error {
	var sources []live.Source
	for _, instance := range c.Instances {
		source, err := live.Remote("", c.withToken(instance))
		if err != nil {
			return err
		}
		sources = append(sources, source)
	}
	page, err := live.New(live.Config{Sources: func() []live.Source { return sources }})
	if err != nil {
		return err
	}
	defer page.Close()
	if c.JSON {
		return c.print(ctx, page)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("--listen is host and port, as in 127.0.0.1:9465: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", http.RedirectHandler(live.Path, http.StatusFound))
	mux.Handle(live.Path, page)
	mux.Handle(live.Path+"/", page)
	server := &http.Server{Handler: telemetry.AdminConfig{Token: c.Token}.Guard(mux), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	fmt.Printf("%d %s at http://%s%s; Ctrl-C ends\n", len(sources), plural(len(sources), "instance"), listener.Addr(), live.Path)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case <-ctx.Done():
		_ = server.Close() // a page that is asked again needs no draining
		<-failed
		return nil // to be stopped is how it ends well
	case err := <-failed:
		return err
	}
}

// print fails if no instance answers.
func (c *dashCmd) print(ctx context.Context, page *live.Page) error {
	view, err := page.View(ctx)
	if err != nil {
		return interrupted(ctx, err)
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(view); err != nil {
		return err
	}
	for _, i := range view.Instances {
		if i.Problem == "" {
			return nil
		}
	}
	return errors.New("no instance answers; each says why, above")
}
