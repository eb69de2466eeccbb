# Loadline. Bare `make` prints the targets.

# Real data for tests and the example's content, where it is there.
ifneq ($(wildcard ../shared/realworld/openapi.yml),)
export LOADLINE_DATA ?= $(abspath ../shared)
endif

# Programs built with -race wait for a second before they exit, and the tests start hundreds.
export GORACE ?= atexit_sleep_ms=0

MODULES := . bench examples/conduit examples/orm
TOOLS   := .bin/staticcheck .bin/gofumpt

.PHONY: help up build test check check-all bench soak screenshots tools servers promtool chromium sqlc clean

help: ## print the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: servers build ## start everything and serve; ARGS="--help" prints its flags, Ctrl-C stops all
	@exec .bin/loadline up $(ARGS)

build: ## build the command and the example into .bin
	@mkdir -p .bin
	@go build -o .bin/loadline ./cmd/loadline
	@go -C examples/conduit build -o ../../.bin/conduit ./cmd/conduit

test: servers promtool ## vet and all tests, with -race, against real servers
	go vet work
	go test -race -timeout 10m work
	go test ./internal/model/... ./bench/caching

check: $(TOOLS) ## format, static analysis, tidy modules
	@files=$$(git ls-files -co --exclude-standard '*.go' ':!:**/sqlc/*.go') && test -n "$$files" || exit 1; \
	unformatted=$$(.bin/gofumpt -l $$files); \
	if [ -n "$$unformatted" ]; then echo "not formatted (run .bin/gofumpt -w):"; echo "$$unformatted"; exit 1; fi
	@set -e; for module in $(MODULES); do echo "check $$module"; \
	  (cd $$module && go vet ./... && $(CURDIR)/.bin/staticcheck ./... && GOWORK=off go mod tidy -diff); done

check-all: servers promtool chromium check ## check, test, and the slow tests
	go vet work
	LOADLINE_SLOW=1 go test -race -timeout 90m -v work
	LOADLINE_SLOW=1 go test -timeout 90m -v ./internal/model/... ./bench/caching
	# Outside the workspace: Kubernetes' dependencies must not choose ours.
	GOWORK=off go -C test/hpa vet ./...
	GOWORK=off go -C test/hpa mod tidy -diff
	GOWORK=off go -C test/hpa test -timeout 30m -v ./...
	$(MAKE) sqlc
	@git diff --exit-code -- examples/conduit/postgres/sqlc || { echo "generated code is stale: make sqlc"; exit 1; }

bench: servers ## run the benchmarks; ratios are printed with their intervals
	go test -run '^$$' -bench . -benchmem work

soak: servers ## half an hour of clients of realtime that come and go: nothing grows; LOADLINE_SOAK=2h for longer
	LOADLINE_SOAK=$${LOADLINE_SOAK:-30m} go test -timeout 0 -count=1 -v -run TestSoak ./realtime

screenshots: servers chromium ## take the pictures of docs, of a stack under load and faults
	LOADLINE_SLOW=1 LOADLINE_SCREENSHOTS=$(CURDIR)/docs go test -timeout 10m -count=1 -run 'TestLivePage|TestWebPage' ./examples/conduit/contract

tools: $(TOOLS) ## build the pinned tools into .bin

# Outside the workspace: their dependencies must not choose ours.
$(TOOLS): tools/go.mod tools/go.sum
	@mkdir -p .bin
	GOWORK=off go -C tools build -o ../.bin/ tool
	@touch $(TOOLS)

sqlc: .bin/sqlc ## generate the example's query code
	cd examples/conduit && ../../.bin/sqlc generate

# Apart from the other tools: it compiles PostgreSQL's parser, which takes minutes.
.bin/sqlc: tools/sqlc/go.mod tools/sqlc/go.sum
	@mkdir -p .bin
	GOWORK=off go -C tools/sqlc build -o ../../.bin/ tool
	@touch $@

servers: ## install PostgreSQL and Redis where they are missing (Debian, Ubuntu)
	@tools/install-servers.sh

# After each other under -j: apt-get has one lock, and the script puts a file aside while it runs.
promtool chromium: | servers
	@tools/install-servers.sh $@

chromium: | promtool

clean: build ## stop the stack, delete its data and what was built
	.bin/loadline down --wipe
	rm -rf .bin
