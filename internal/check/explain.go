package check

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/nats-io/nats.go"
)

// explain says of an error what it is, on one line, and what to do about it.
func explain(ctx context.Context, err error) (found, do string) {
	found = strings.Join(strings.Fields(err.Error()), " ")
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		found = pg.Message
		switch {
		case strings.HasPrefix(pg.Code, "28"):
			return found, "look at the user and the password in the URL, and at the server's pg_hba.conf"
		case pg.Code == "3D000":
			return found, "look at the database's name at the end of the URL, or create it"
		case pg.Code == "53300":
			return found, "all connections are taken: raise max_connections, or lower the pools"
		case pg.Code == "57P03":
			return found, "it is starting, or shutting down: wait, and look at its log if it stays so"
		}
		return found, ""
	}
	name, isDNS := errors.AsType[*net.DNSError](err)
	_, isCertificate := errors.AsType[*tls.CertificateVerificationError](err)
	_, isAuthority := errors.AsType[x509.UnknownAuthorityError](err)
	switch text := err.Error(); {
	case errors.Is(context.Cause(ctx), errSilent):
		return found, "it is paused or overloaded, or a firewall drops what is sent: look at the process, and try the address from this machine"
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, nats.ErrNoServers):
		return "nothing listens there: " + found, "start the server, or correct the address"
	case isDNS:
		return "the name " + name.Name + " is not known", "correct the address, or look at the DNS of this machine"
	case isCertificate, isAuthority:
		return found, "trust the authority that has signed the server's certificate, or correct the host's name"
	case strings.Contains(text, "WRONGPASS"), strings.Contains(text, "NOAUTH"), errors.Is(err, nats.ErrAuthorization):
		return found, "look at the user and the password in the URL"
	case strings.Contains(text, "LOADING"):
		return found, "it is still loading its data: wait"
	case strings.Contains(text, "NOPERM"):
		return found, "let the user run PING, INFO and CONFIG GET"
	case errors.Is(err, syscall.ECONNRESET), strings.Contains(text, "EOF"):
		return "the connection was ended by the other side: " + found, "another kind of server may listen there, or want TLS; look at its log"
	}
	return found, "correct the URL"
}
