package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// minPostgres: pg_basebackup, slots and pg_stat_wal_receiver are used as they
// are since this version, the oldest still maintained in 2026.
const minPostgres = 14

// postgresDirs are where distributions put PostgreSQL's server programs, which
// most keep off the PATH.
var postgresDirs = []string{
	"/usr/lib/postgresql/*/bin",                // Debian, Ubuntu
	"/usr/pgsql-*/bin",                         // PGDG on Fedora, RHEL
	"/usr/bin",                                 // Fedora
	"/opt/homebrew/opt/postgresql@*/bin",       // Homebrew on Apple silicon
	"/usr/local/opt/postgresql@*/bin",          // Homebrew on Intel
	"/home/linuxbrew/.linuxbrew/opt/post*/bin", // Homebrew on Linux
	"/usr/local/pgsql/bin",                     // from source
}

// Postgres is an installed PostgreSQL.
type Postgres struct {
	BinDir  string
	Version int // the major version
}

func (p Postgres) program(name string) string { return filepath.Join(p.BinDir, name) }

// FindPostgres returns the newest PostgreSQL with server programs on PATH or in
// the usual places. With want > 0 it returns that major version alone, because a
// data directory can be opened by no other.
func FindPostgres(ctx context.Context, want int) (Postgres, error) {
	patterns := append(filepath.SplitList(os.Getenv("PATH")), postgresDirs...)
	var found []Postgres
	for _, pattern := range patterns {
		dirs, _ := filepath.Glob(pattern) // the only error is a bad pattern in PATH
		for _, dir := range dirs {
			if p, err := postgresIn(ctx, dir); err == nil {
				found = append(found, p)
			}
		}
	}
	slices.SortStableFunc(found, func(a, b Postgres) int { return b.Version - a.Version })
	for _, p := range found {
		if p.Version < minPostgres || (want > 0 && p.Version != want) {
			continue
		}
		return p, nil
	}
	what := fmt.Sprintf("PostgreSQL %d or newer", minPostgres)
	if want > 0 {
		what = fmt.Sprintf("PostgreSQL %d, which made the data directory,", want)
	}
	return Postgres{}, missing(what, "postgresql", "postgresql-server postgresql-contrib", "postgresql@17")
}

var postgresVersion = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

func postgresIn(ctx context.Context, dir string) (Postgres, error) {
	// A client-only installation has psql, sometimes pg_basebackup, but neither
	// of these two.
	for _, name := range []string{"initdb", "postgres"} {
		if _, err := exec.LookPath(filepath.Join(dir, name)); err != nil {
			return Postgres{}, err
		}
	}
	// A link on the PATH to one program leads to the directory with all of them.
	if target, err := filepath.EvalSymlinks(filepath.Join(dir, "postgres")); err == nil {
		dir = filepath.Dir(target)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return Postgres{}, err
	}
	m := postgresVersion.FindSubmatch(out)
	if m == nil {
		return Postgres{}, fmt.Errorf("unexpected version %q", out)
	}
	major, err := strconv.Atoi(string(m[1]))
	return Postgres{BinDir: dir, Version: major}, err
}

// FindRedis returns the path of redis-server, or of valkey-server, which has
// taken its place in Fedora.
func FindRedis() (string, error) {
	dirs := append(filepath.SplitList(os.Getenv("PATH")), "/usr/bin", "/usr/sbin", "/usr/local/bin", "/opt/homebrew/bin")
	for _, name := range []string{"redis-server", "valkey-server"} {
		for _, dir := range dirs {
			if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
				return path, nil
			}
		}
	}
	return "", missing("redis-server", "redis-server", "valkey", "redis")
}

func missing(what, debian, fedora, brew string) error {
	hint := fmt.Sprintf("on Debian or Ubuntu: apt-get install %s; on Fedora: dnf install %s; with Homebrew: brew install %s", debian, fedora, brew)
	release, _ := os.ReadFile("/etc/os-release")
	switch {
	case strings.Contains(string(release), "debian"):
		hint = "run: apt-get install " + debian
	case strings.Contains(string(release), "fedora"):
		hint = "run: dnf install " + fedora
	}
	return fmt.Errorf("%w: %s is not on PATH nor in the usual places; %s", ErrMissingProgram, what, hint)
}

// ErrMissingProgram is returned when a server's program is not installed.
var ErrMissingProgram = errors.New("missing program")
