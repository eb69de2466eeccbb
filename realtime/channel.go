package realtime

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/loadlinehq/loadline/tenancy"
)

// MaxChannelLength bounds a channel's text, in bytes.
const MaxChannelLength = 255

// ErrChannel is the error of a text, or of parts, that make no channel.
var ErrChannel = errors.New("realtime: not a channel")

// Channel is what is published to and listened to. Its text is tenant/namespace:name, or namespace:name without a tenant.
type Channel struct {
	Tenant    string // as package tenancy has it; "": none
	Namespace string
	Name      string
}

// ChannelOf is a channel of the context's tenant.
func ChannelOf(ctx context.Context, namespace, name string) Channel {
	tenant, _ := tenancy.FromContext(ctx)
	return Channel{Tenant: tenant, Namespace: namespace, Name: name}
}

// ParseChannel returns the channel of a text, or an [ErrChannel].
func ParseChannel(text string) (Channel, error) {
	var c Channel
	front, name, found := strings.Cut(text, ":")
	if !found {
		return c, fmt.Errorf("%w: %.64q has no namespace, which ends with a colon", ErrChannel, text)
	}
	c.Namespace, c.Name = front, name
	if tenant, namespace, found := strings.Cut(front, "/"); found {
		c.Tenant, c.Namespace = tenant, namespace
		if tenant == "" {
			return c, fmt.Errorf("%w: %.64q has an empty tenant", ErrChannel, text)
		}
	}
	return c, c.check()
}

func (c Channel) check() error {
	if c.Tenant != "" {
		if err := tenancy.Check(c.Tenant); err != nil {
			return fmt.Errorf("%w: %w", ErrChannel, err)
		}
	}
	if err := checkNamespace(c.Namespace); err != nil {
		return fmt.Errorf("%w: %w", ErrChannel, err)
	}
	if c.Name == "" {
		return fmt.Errorf("%w: its name is missing", ErrChannel)
	}
	for i := range len(c.Name) {
		if b := c.Name[i]; b <= ' ' || b >= 0x7f {
			return fmt.Errorf("%w: byte %d of its name is %q: signs of ASCII are allowed, without spaces", ErrChannel, i+1, b)
		}
	}
	if n := len(c.String()); n > MaxChannelLength {
		return fmt.Errorf("%w: it has %d bytes, more than %d", ErrChannel, n, MaxChannelLength)
	}
	return nil
}

func checkNamespace(name string) error {
	if name == "" {
		return errors.New("the namespace is missing")
	}
	for i := range len(name) {
		switch b := name[i]; {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9', b == '-', b == '_':
		default:
			return fmt.Errorf("byte %d of namespace %.64q is %q: letters, digits, - and _ are allowed", i+1, name, b)
		}
	}
	return nil
}

// String is the text that clients subscribe to.
func (c Channel) String() string {
	if c.Tenant == "" {
		return c.Namespace + ":" + c.Name
	}
	return c.Tenant + "/" + c.Namespace + ":" + c.Name
}
