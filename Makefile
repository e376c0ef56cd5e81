# Everything that can be done with this repository. `make` alone lists it.
# Plain sh and GNU make 4.3; nothing needs to be installed but Go, and what
# `make deps` names.

# --- What people may set ------------------------------------------------------

# Time for each fuzz target of `make fuzz`.
FUZZTIME ?= 30s
# Which cells `make bench` and `make bench-fleet` measure (all if empty), `make bench` in
# how many rounds, of how many seconds, and further flags; BENCHFLAGS=--help lists cells
# and flags.
CELLS ?=
ROUNDS ?= 10
SECONDS ?= 1
BENCHFLAGS ?=
# Which benchmarks `make microbench` runs, and how often (benchstat wants 6 or more).
BENCH ?= .
COUNT ?= 1
# What `make run` serves.
CONFIG ?= configs/demo.yaml
# Which tests `make e2e` runs: a module, class or test, e.g. e2e.test_reload.
T ?=
# The system's interpreter: python3 may be a version manager's shim.
PYTHON ?= $(shell [ -x /usr/bin/python3 ] && echo /usr/bin/python3 || echo python3)
GO ?= go

# --- Tools, pinned here and run through the Go module proxy --------------------
# (The two protoc plug-ins are pinned where buf reads them: buf.gen.yaml.)

BUF := $(GO) run github.com/bufbuild/buf/cmd/buf@v1.75.0
GOLANGCI_LINT := $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

# ------------------------------------------------------------------------------

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
# Where a data plane spends its time, for the compiler, which inlines by it. It is not
# called default.pgo lest every test be compiled by it, too.
PROFILE := dataplane/forwarding.pgo
GO_FILES = $$(find . -name '*.go' -not -path './build/*')
# What the wire contract must stay compatible with: the newest release, or else
# the commit before this one. Empty in a clone without history.
BUF_AGAINST = $$(git describe --tags --abbrev=0 2>/dev/null || git rev-parse --quiet --verify HEAD~1 2>/dev/null)

.NOTPARALLEL:
.PHONY: help build run test unit coverage e2e e2e-portable browser screenshot format lint generate fuzz profile bench bench-fleet microbench clean \
	deps deps-browser check-format check-vet check-lint check-proto check-generated

help: ## print this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## both programs, static, into build/
	CGO_ENABLED=0 $(GO) build -trimpath -pgo=$(PROFILE) -ldflags '-X main.version=$(VERSION)' -o build/ ./controlplane ./dataplane

run: build ## serve configs/demo.yaml: demo backends, a control plane, two data planes
	@$(PYTHON) -B e2e/demo.py $(CONFIG)

test: deps check-format lint check-generated unit e2e e2e-portable browser ## everything that CI checks
	@echo "make test: all checks passed"

unit: deps ## Go tests with the race detector; coverage data into build/
	@mkdir -p build
	$(GO) test -race -covermode=atomic -coverpkg=./... -coverprofile=build/coverage.out ./...
	@# The race detector allocates, so tests of allocations are built without it.
	@packages=$$(grep -rl --include='*_test.go' 'func Test[A-Za-z]*Alloc' . | xargs -r -n 1 dirname | sort -u); \
	[ -z "$$packages" ] || { set -x; $(GO) test -run Alloc $$packages; }

coverage: ## HTML report of the last `make unit`
	@test -f build/coverage.out || $(MAKE) unit
	@$(GO) tool cover -func=build/coverage.out | tail -n 1
	@$(GO) tool cover -html=build/coverage.out -o build/coverage.html
	@echo "$(CURDIR)/build/coverage.html"

e2e-portable: export E2E_DRIVER = portable
e2e e2e-portable: deps build
e2e: ## end-to-end tests of the built programs; T=e2e.test_reload for some
e2e-portable: ## the same with the data planes' portable driver
e2e e2e-portable:
	@if [ -n "$(T)" ]; then $(PYTHON) -B -m unittest -v $(T); \
	else $(PYTHON) -B -m unittest discover -v -s e2e -t . -p 'test_*.py'; fi

browser: deps-browser build ## the control plane's page in headless Chromium; T=e2e.browser.page_test.Large for a part
	CGO_ENABLED=0 $(GO) build -trimpath -o build/bench/ ./e2e/bench/dataplanes
	@if [ -n "$(T)" ]; then $(PYTHON) -B -m unittest -v $(T); \
	else $(PYTHON) -B -m unittest discover -v -s e2e/browser -t . -p '*_test.py'; fi

screenshot: deps-browser build ## the picture of the page in the README, anew; takes four minutes
	CGO_ENABLED=0 $(GO) build -trimpath -o build/bench/ ./e2e/bench/dataplanes
	@$(PYTHON) -B -m unittest e2e.browser.screenshot

format: ## format Go and proto files
	gofmt -w $(GO_FILES)
	$(BUF) format -w

lint: check-vet check-lint check-proto ## go vet, golangci-lint, buf lint, format and breaking

generate: ## regenerate Go code from proto/
	$(BUF) generate

fuzz: ## every fuzz target for FUZZTIME (30s) each
	@set -e; for package in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
			echo "$$package $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$package; \
		done; \
	done

profile: ## record anew what the compiler optimizes for; after changes of the hot path
	@mkdir -p build/profile
	$(GO) test -trimpath -run '^$$' -bench 'Throughput/epoll/1KB' -benchtime 10s -o build/profile/ -cpuprofile build/profile/loop ./dataplane/internal/loop
	$(GO) test -trimpath -run '^$$' -bench 'Exchange/.*/plain' -benchtime 5s -o build/profile/ -cpuprofile build/profile/proxy ./dataplane/internal/proxy
	$(GO) tool pprof -proto build/profile/loop build/profile/proxy > $(PROFILE)

bench: deps build ## beside nginx and HAProxy, 20 minutes; CELLS=c64,close ROUNDS=3 for a part
	@[ "$$(uname -s)" = Linux ] || { echo "make bench needs Linux" >&2; exit 1; }
	CGO_ENABLED=0 $(GO) build -trimpath -o build/bench/ ./e2e/bench/relay ./e2e/bench/openloop
	@$(PYTHON) -B -m e2e.bench --cells "$(CELLS)" --rounds "$(ROUNDS)" --seconds "$(SECONDS)" $(BENCHFLAGS)

bench-fleet: deps build ## 1,000 and 10,000 simulated data planes, 5 minutes; CELLS=1k-1k,storm for a part
	@[ "$$(uname -s)" = Linux ] || { echo "make bench-fleet needs Linux" >&2; exit 1; }
	CGO_ENABLED=0 $(GO) build -trimpath -o build/bench/ ./e2e/bench/dataplanes
	@$(PYTHON) -B -m e2e.bench.fleet --cells "$(CELLS)" $(BENCHFLAGS)

microbench: ## Go benchmarks; BENCH=regexp, COUNT=6 for benchstat
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -count $(COUNT) ./...

clean: ## remove build/
	rm -rf build

# --- Parts of test and lint ----------------------------------------------------

# The race detector needs a C compiler, the end-to-end tests Python, those of the page
# a browser. Root may install them, everybody else is told what to install.
deps:
	@missing=""; \
	command -v $$($(GO) env CC) >/dev/null 2>&1 || missing="$$missing gcc libc6-dev"; \
	command -v $(PYTHON) >/dev/null 2>&1 || missing="$$missing python3"; \
	$(INSTALL_MISSING)

deps-browser: deps
	@missing=""; \
	command -v chromium >/dev/null 2>&1 || missing="$$missing chromium"; \
	command -v chromedriver >/dev/null 2>&1 || missing="$$missing chromium-driver"; \
	$(INSTALL_MISSING)

define INSTALL_MISSING
	[ -n "$$missing" ] || exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
		echo "installing$$missing"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
	else \
		echo "missing:$$missing. On Debian or Ubuntu: sudo apt-get install$$missing" >&2; exit 1; \
	fi
endef

check-format:
	@unformatted=$$(gofmt -l $(GO_FILES)); [ -z "$$unformatted" ] || \
		{ echo "not formatted (run make format):"; echo "$$unformatted"; exit 1; } >&2

check-vet:
	$(GO) vet ./...

check-lint:
	$(GOLANGCI_LINT) run --allow-parallel-runners ./...

# Folders below build/ that hold Go files begin with _, which hides them from ./...
check-proto:
	$(BUF) lint
	$(BUF) format --diff --exit-code
	@against="$(BUF_AGAINST)"; \
	if [ -z "$$against" ] || ! git cat-file -e "$$against:proto" 2>/dev/null; then \
		echo "buf breaking: no earlier version to compare with"; exit 0; fi; \
	rm -rf build/_against && mkdir -p build/_against && \
	git archive "$$against" buf.yaml proto | tar -x -C build/_against && \
	echo "buf breaking: against $$against" && \
	$(BUF) breaking --against build/_against

# The committed code is what the .proto files generate. Generates elsewhere, so
# that the check itself changes nothing.
check-generated:
	@rm -rf build/_generated && mkdir -p build/_generated
	$(BUF) generate -o build/_generated
	@for f in $$(find proto build/_generated/proto -name '*.pb.go' | sed 's,^build/_generated/,,' | sort -u); do \
		cmp -s $$f build/_generated/$$f || { echo "$$f is not what make generate makes" >&2; exit 1; }; done
