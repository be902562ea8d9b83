// Command cryptoviz makes Kafka, PostgreSQL and Grafana match pipeline.hcl, and runs the pipeline.
package main

import (
	"context"
	"embed"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/cryptoviz/cryptoviz/engine/cli"
)

// version is set by the build: -ldflags "-X main.version=v1.2.3".
var version = ""

//go:embed pipeline.hcl .env.example docker-compose.yml sources sql dashboards
var bundle embed.FS

func main() {
	// SIGHUP: the terminal was closed. That is an orderly end, too, unless nohup had it ignored.
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	// The first signal asks for an orderly end; after it the default is back, so that a second one ends at once: but
	// for SIGHUP, which the shell and the terminal both send.
	context.AfterFunc(ctx, func() {
		signal.Ignore(syscall.SIGHUP)
		stop()
	})
	code := cli.Main(ctx, os.Args[1:], cli.IO{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Getenv: os.LookupEnv, Bundle: bundle, Version: buildVersion(),
	})
	stop()
	os.Exit(code)
}

func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "0.1.0-dev"
}
