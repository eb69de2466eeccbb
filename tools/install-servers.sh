#!/bin/sh
# Installs PostgreSQL's and Redis' servers where they are missing, and what else is named
# that tests alone use: promtool, chromium. It knows Debian and Ubuntu; elsewhere it says
# what is needed.
set -eu

packages=
# The places are those of internal/stack/binaries.go.
for dir in $(echo "$PATH" | tr ':' ' ') /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /usr/bin /usr/sbin /usr/local/bin \
  /opt/homebrew/bin /opt/homebrew/opt/postgresql@*/bin /usr/local/opt/postgresql@*/bin \
  /home/linuxbrew/.linuxbrew/opt/post*/bin /usr/local/pgsql/bin; do
  if [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ]; then postgres=yes; fi
  if [ -x "$dir/redis-server" ] || [ -x "$dir/valkey-server" ]; then redis=yes; fi
done
[ "${postgres:-}" ] || packages="postgresql"
[ "${redis:-}" ] || packages="$packages redis-server"
for program in "$@"; do
  command -v "$program" >/dev/null && continue
  case $program in promtool) package=prometheus ;; *) package=$program ;; esac
  if command -v apt-get >/dev/null; then
    packages="$packages $package"
  else
    echo "missing: $program; tests that need it are skipped" >&2
  fi
done
[ "$packages" ] || exit 0

if ! command -v apt-get >/dev/null; then
  echo "missing:$packages; install PostgreSQL 14 or newer and Redis, then run this again" >&2
  exit 1
fi
as_root=
if [ "$(id -u)" != 0 ]; then
  # No password on a machine without a terminal to type it at.
  if command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
    as_root=sudo
  else
    echo "missing; as root, run: apt-get install $packages" >&2
    exit 1
  fi
fi

echo "installing: $packages"
# The packages start system-wide servers, which nobody has asked for; this is
# Debian's way to say so (invoke-rc.d(8)).
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap '$as_root rm -f "$policy"' EXIT
  # A shell that ends by a signal runs no EXIT trap.
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
  $as_root chmod 755 "$policy"
fi
apt="$as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120"
$apt update
# shellcheck disable=SC2086 # two words are two packages
$apt install --no-install-recommends -y $packages >/dev/null
