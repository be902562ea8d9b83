package embedded

import (
	"context"
	_ "embed"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// The roles of the private PostgreSQL. The pipeline is a file, maybe a stranger's, and runs as the owner of its
// database: on a superuser's connection the default of a column could write a file of the server's account.
const (
	superuser = "cryptoviz_superuser"
	owner     = "cryptoviz"
	reader    = "cryptoviz_reader"
	database  = "cryptoviz"
)

//go:embed roles.sql
var rolesSQL string

//go:embed rights.sql
var rightsSQL string

// setUp makes the roles, and the database with its extension. All of it may be done again, and is at every start: what
// somebody changed by hand is put right, and a database of an older version gets its owner.
func setUp(ctx context.Context, d StateData) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	standby := false
	err := asSuperuser(ctx, d, "postgres", func(conn *pgx.Conn) error {
		if err := conn.QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&standby); err != nil || standby {
			return err
		}
		if _, err := conn.Exec(ctx, rolesSQL); err != nil {
			return err
		}
		for role, password := range map[string]string{owner: d.Password, reader: d.ReaderPassword} {
			if _, err := conn.Exec(ctx, "ALTER ROLE "+role+" PASSWORD '"+strings.ReplaceAll(password, "'", "''")+
				"'"); err != nil {
				return err
			}
		}
		var there bool
		if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", database).
			Scan(&there); err != nil || there {
			return err
		}
		_, err := conn.Exec(ctx, "CREATE DATABASE "+database+" OWNER "+owner)
		return err
	})
	if err != nil || standby { // it has what its primary has
		return err
	}
	return asSuperuser(ctx, d, database, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, rightsSQL)
		return err
	})
}

// asSuperuser opens a connection to a database of the server. Names are looked up in pg_catalog alone: in public, the
// owner may have a function of the same name.
func asSuperuser(ctx context.Context, d StateData, name string, do func(*pgx.Conn) error) error {
	cfg, err := pgx.ParseConfig(d.SuperuserURL())
	if err != nil {
		return err
	}
	cfg.Database = name
	cfg.RuntimeParams["search_path"] = "pg_catalog"
	cfg.RuntimeParams["default_transaction_read_only"] = "off"
	cfg.RuntimeParams["application_name"] = "cryptoviz up"
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return do(conn)
}
