package testkit

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Whatever names a server, another database of it has a URL that takes more parameters.
func TestDatabaseURL(t *testing.T) {
	t.Parallel()
	for admin, want := range map[string]string{
		"postgres://me:p%40ss@db:5433/postgres":                          "me p@ss db 5433 t",
		"postgres://me@db/postgres?sslmode=disable":                      "me  db 5432 t",
		"postgresql://me@/postgres?host=/run/x":                          "me  /run/x 5432 t",
		"host=/run/x user=me password='p ss' dbname=postgres":            "me p ss /run/x 5432 t",
		"host=db port=5433 user=me dbname=postgres sslmode=disable":      "me  db 5433 t",
		"host=db port=5433 user=me application_name=x dbname='postgres'": "me  db 5433 t",
	} {
		got, err := databaseURL(admin, "t")
		if err != nil || !strings.Contains(got, "?") {
			t.Errorf("%s: %s %v", admin, got, err)
			continue
		}
		cfg, err := pgx.ParseConfig(got + "&lock_timeout=3s")
		if err != nil {
			t.Errorf("%s: %v", got, err)
			continue
		}
		if have := strings.Join([]string{cfg.User, cfg.Password, cfg.Host, fmt.Sprint(cfg.Port), cfg.Database}, " "); have != want || cfg.RuntimeParams["lock_timeout"] != "3s" {
			t.Errorf("%s: %s, want %s", admin, have, want)
		}
	}
	if _, err := databaseURL("postgres://me:geheim@db:x/postgres", "t"); err == nil || strings.Contains(err.Error(), "geheim") {
		t.Error(err)
	}
}
