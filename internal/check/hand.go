package check

import (
	"net/url"
	"strings"
)

// quote makes one word of a text, for a shell.
func quote(text string) string {
	if text != "" && !strings.ContainsFunc(text, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./-_", r)
	}) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// psql asks a server by hand.
func psql(c Config, dsn, query string) string {
	return "psql " + quote(c.Redact(libpq(dsn))) + " -c " + quote(query)
}

// ours are the parameters of a connection string that are pgx's alone, and that libpq refuses.
var ours = []string{
	"default_query_exec_mode", "statement_cache_capacity", "description_cache_capacity",
	"pool_max_conns", "pool_min_conns", "pool_min_idle_conns", "pool_max_conn_lifetime", "pool_max_conn_idle_time", "pool_health_check_period", "pool_max_conn_lifetime_jitter",
}

func libpq(dsn string) string {
	u, err := url.Parse(dsn)
	if err != nil || u.RawQuery == "" {
		return dsn
	}
	query := u.Query()
	before := len(query)
	for _, name := range ours {
		query.Del(name)
	}
	if len(query) == before {
		return dsn
	}
	u.RawQuery = query.Encode()
	return u.String()
}

// natsCommand asks a broker by hand.
func natsCommand(servers string, flags []string) string {
	words := []string{"nats", "--server", quote(servers)}
	for _, flag := range flags {
		words = append(words, quote(flag))
	}
	return strings.Join(append(words, "server", "check", "jetstream"), " ")
}
