# Short names for the usual commands; each also works without make.
.DEFAULT_GOAL := help
SHELL := /bin/bash
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null)

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build ./cryptoviz
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o cryptoviz .

.PHONY: test
test: ## Vet and test, with the race detector too: needs Go and a C compiler
	.ci/run test

.PHONY: services
services: ## Test against real Apache Kafka and TimescaleDB
	.ci/run services

.PHONY: lint
lint: ## Check Go, HCL, YAML, SQL, dashboards and Terraform
	.ci/run lint

.PHONY: fmt
fmt: ## Format Go and HCL
	go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0 fmt
	go run . fmt

.PHONY: up
up: ## Run everything on this machine, on live data
	go run . up

.PHONY: simulate
simulate: ## The same without a network
	go run . up --simulate --state .cryptoviz-simulated

.PHONY: env
env: ## Write a .env with random passwords for docker compose; never overwrites one
	@test ! -e .env || { echo '.env exists already: left alone'; exit 1; }
	@umask 077; while IFS= read -r line; do \
	  case "$$line" in \
	    *_PASSWORD=) printf '%s%s\n' "$$line" "$$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')" ;; \
	    *) printf '%s\n' "$$line" ;; \
	  esac; done < .env.example > .env
	@echo 'Wrote .env with random passwords.'

.PHONY: docker
docker: ## Build the image cryptoviz:local
	docker build --build-arg VERSION=$(VERSION) -t cryptoviz:local .

.PHONY: ci
ci: ## Everything that must hold before a change lands
	.ci/run
