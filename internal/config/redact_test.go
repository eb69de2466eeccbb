package config_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/loadlinehq/loadline/internal/config"
)

func TestRedact(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                               "",
		"plain text":                     "plain text",
		"user@example.com":               "user@example.com",
		"postgres://app@db:5432/app":     "postgres://app@db:5432/app",
		"https://example.com/a?b=c@d":    "https://example.com/a?b=c@d",
		"postgres://app:pw@db/app":       "postgres://app:[redacted]@db/app",
		"postgres://app:p/w:x@y#@db/app": "postgres://app:[redacted]@db/app",
		"postgres://app:p w@db/app":      "postgres://app:[redacted]@db/app",
		"redis://:pw@redis:6379/0":       "redis://:[redacted]@redis:6379/0",
		"nats://token@nats:4222":         "nats://[redacted]@nats:4222",
		"POSTGRES://app:PW@db":           "POSTGRES://app:[redacted]@db",
		"postgres://db/app?user=a&password=pw&sslmode=disable": "postgres://db/app?user=a&password=[redacted]&sslmode=disable",
		"postgres://db/app?sslpassword=pw#x":                   "postgres://db/app?sslpassword=[redacted]#x",
		"https://x.example/?access_token=pw&a=b":               "https://x.example/?access_token=[redacted]&a=b",
		"host=db password=pw user=app":                         "host=db password=[redacted] user=app",
		"host=db password = 'p w\\' x' user=app":               "host=db password = [redacted] user=app",
		"host=db password=p\\ w&x user=app":                    "host=db password=[redacted] user=app",
		"PGPASSWORD=pw ./app migrate":                          "PGPASSWORD=[redacted] ./app migrate",
		`sh -c "PGPASSWORD='p w' ./app"`:                       `sh -c "PGPASSWORD=[redacted] ./app"`,
		"postgres://a:pw1@one,postgres://a:pw2@two":            "postgres://a:[redacted]@two",
	} {
		if got := config.Redact(text); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", text, got, want)
		}
	}
}

// No secret is in what is printed, nor in an error, wherever a file or a variable
// may have it, and whatever else is wrong.
func TestNoSecretIsShown(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		// Its ends are in no message by themselves.
		secret := "Zq" + rapid.StringMatching(`[0-9A-Za-z:/?#@&=%+ '"\\$!.,;-]{4,20}`).Draw(r, "secret") + "qZ"
		escaped := url.UserPassword("app", secret).String()
		param := url.QueryEscape(secret)
		conn := rapid.SampledFrom([]string{
			"postgres://" + escaped + "@127.0.0.1/app",
			"postgres://app:" + secret + "@127.0.0.1/app",
			"postgres://" + escaped + "@bad",
			"redis://:" + strings.TrimPrefix(escaped, "app:") + "@127.0.0.1",
			"nats://" + param + "@127.0.0.1",
			"postgres://127.0.0.1/app?password=" + param + "&sslmode=disable",
			"host=127.0.0.1 password='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(secret) + "' user=bad",
		}).Draw(r, "connection")
		quote := func(s string) string { b, _ := json.Marshal(s); return string(b) }
		file := rapid.SampledFrom([]string{
			"auth:\n  jwtSecret: SECRET\n",
			"auth:\n  jwtSecret: [SECRET]\n",
			"auth:\n  jwtSecret: {a: SECRET}\n",
			"auth:\n  pin: SECRET\n",
			"auth:\n  keys: SECRET\n",
			"auth:\n  keys: [SECRET, 5, {SECRET: 1}]\n",
			"auth: SECRET\n",
			"database:\n  url: CONNECTION\n",
			"database:\n  max: CONNECTION\n",
			"database:\n  queryTimeout: CONNECTION\n",
			"database:\n  replicas: [CONNECTION, 5]\n",
			"database:\n  replicas: [CONNECTION, CONNECTION]\n  queryTimeout: 20s\n",
			"database:\n  CONNECTION: 5\n",
			"auth:\n  jwtSecret: \"BARE\n",
			"auth:\n  jwtSecret: SECRET x\n",
			"auth:\n  jwtSecret: |BARE\n",
			"auth:\n  jwtSecret: &BARE\n",
			"auth:\n  jwtSecret: *BARE\n",
			"auth:\n  jwtSecret: !BARE\n",
			"auth:\n  jwtSecret: \"\\BARE\"\n",
			"auth:\n  jwtSecret: BARE\n",
			"%BARE\n",
			"",
		}).Draw(r, "file")
		content := strings.NewReplacer(
			"SECRET", quote(secret),
			"CONNECTION", quote(conn),
			"BARE", strings.ReplaceAll(secret, " #", "#"), // not to begin a comment
		).Replace(file)
		environ := rapid.SliceOfN(rapid.SampledFrom([]string{
			"JWT_SECRET=" + secret, "PIN=" + secret, "KEYS=" + secret + "," + secret,
			"DATABASE_URL=" + conn, "REPLICAS=" + strings.ReplaceAll(conn, ",", ""), "POOL_MAX=" + conn, "QUERY_TIMEOUT=" + conn, "DISABLE_JIT=" + conn,
		}), 0, 4).Draw(r, "environment")
		_, values, err := load(t, content, environ...)
		var shown strings.Builder
		fmt.Fprintln(&shown, err)
		if values != nil {
			if err := values.WriteYAML(&shown); err != nil {
				r.Fatal(err)
			}
			if err := values.WriteJSON(&shown); err != nil {
				r.Fatal(err)
			}
		}
		if strings.Contains(shown.String(), "Zq") || strings.Contains(shown.String(), "qZ") {
			r.Fatalf("an end of %q is in\n%s\nof the file\n%s\nand %q", secret, shown.String(), content, environ)
		}
	})
}
