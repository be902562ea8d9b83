package store_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cryptoviz/cryptoviz/engine/store"
)

// trigger makes a trigger on the table; when is its time, body its PL/pgSQL.
func trigger(when, body string) string {
	kind := "CREATE TRIGGER"
	if strings.Contains(when, "DEFERRABLE") {
		kind = "CREATE CONSTRAINT TRIGGER"
	}
	before, deferrable, _ := strings.Cut(when, " DEFERRABLE")
	if deferrable != "" {
		deferrable = " DEFERRABLE" + deferrable
	}
	return "CREATE FUNCTION objects() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN " + body + " END $f$; " +
		kind + " objects " + before + " INSERT ON raw_crypto_data" + deferrable + " FOR EACH ROW EXECUTE FUNCTION objects()"
}

// TestOneRowIsRefused: whatever a table has against one row, in whatever words, the others are stored and that one is kept.
func TestOneRowIsRefused(t *testing.T) {
	t.Parallel()
	const bad = "NEW.price = 5000"
	for name, c := range map[string]struct{ change, want string }{
		"raise":                       {trigger("BEFORE", "IF "+bad+" THEN RAISE EXCEPTION 'no such price: %', NEW.price; END IF; RETURN NEW;"), "no such price: 5000"},
		"raise, after":                {trigger("AFTER", "IF "+bad+" THEN RAISE EXCEPTION 'no'; END IF; RETURN NULL;"), "P0001"},
		"raise, at the end":           {trigger("AFTER DEFERRABLE INITIALLY DEFERRED", "IF "+bad+" THEN RAISE EXCEPTION 'no'; END IF; RETURN NULL;"), "P0001"},
		"raise, a code of its own":    {trigger("BEFORE", "IF "+bad+" THEN RAISE 'no' USING ERRCODE = 'CV001'; END IF; RETURN NEW;"), "CV001"},
		"raise, a server's code":      {trigger("BEFORE", "IF "+bad+" THEN RAISE disk_full; END IF; RETURN NEW;"), "53100"},
		"raise, a right's code":       {trigger("BEFORE", "IF "+bad+" THEN RAISE insufficient_privilege; END IF; RETURN NEW;"), "42501"},
		"raise, a partition's code":   {trigger("BEFORE", "IF "+bad+" THEN RAISE check_violation; END IF; RETURN NEW;"), "23514"},
		"raise, a column's code":      {trigger("BEFORE", "IF "+bad+" THEN RAISE not_null_violation; END IF; RETURN NEW;"), "23502"},
		"raise, a format's code":      {trigger("BEFORE", "IF "+bad+" THEN RAISE bad_copy_file_format; END IF; RETURN NEW;"), "22P04"},
		"assert":                      {trigger("BEFORE", "ASSERT NOT "+bad+", 'never'; RETURN NEW;"), "P0004"},
		"strict":                      {trigger("BEFORE", "IF "+bad+" THEN SELECT 1 INTO STRICT NEW.bid WHERE false; END IF; RETURN NEW;"), "P0002"},
		"case":                        {trigger("BEFORE", "CASE WHEN NOT "+bad+" THEN RETURN NEW; END CASE;"), "20000"},
		"no return":                   {trigger("BEFORE", "IF NOT "+bad+" THEN RETURN NEW; END IF;"), "2F005"},
		"several rows":                {trigger("BEFORE", "IF "+bad+" THEN NEW.bid = (SELECT * FROM (VALUES (1), (2)) AS v); END IF; RETURN NEW;"), "21000"},
		"what it needs is missing":    {trigger("BEFORE", "IF "+bad+" THEN PERFORM FROM nowhere; END IF; RETURN NEW;"), "42P01"},
		"row-level security":          {"CREATE POLICY few ON raw_crypto_data USING (true) WITH CHECK (price < 1000); ALTER TABLE raw_crypto_data ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY", "42501"},
		"domain":                      {"CREATE DOMAIN few AS double precision CHECK (VALUE < 1000); ALTER TABLE raw_crypto_data ALTER price TYPE few", "23514"},
		"a column of others is empty": {"ALTER TABLE raw_crypto_data ADD extra integer NOT NULL; " + trigger("BEFORE", "IF NOT "+bad+" THEN NEW.extra = 1; END IF; RETURN NEW;"), "23502"},
	} {
		t.Run(name, func(t *testing.T) {
			b, s := asRole(t, c.change)
			fence := b.claim(0, 100)
			records := many(9, time.Now())
			records[4] = record("ETHUSDT", time.Now(), "5000")
			batch := b.batch(0, records...)
			if err := s.Commit(t.Context(), b.target, fence, batch); err != nil {
				t.Fatal(err)
			}
			if batch.Stored != 8 || len(batch.Dead) != 1 || batch.Dead[0].Offset != 4 || !strings.Contains(batch.Dead[0].Reason, c.want) {
				t.Errorf("stored %d, dead letters %q", batch.Stored, reasons(batch))
			}
		})
	}
}

// TestEachRowIsRefused: a trigger's word about rows counts for all of them, too; what fails without a look at the row never does.
func TestEachRowIsRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change, want string
		dead         bool
	}{
		"raise":                     {change: trigger("BEFORE", "RAISE EXCEPTION 'no';"), want: "P0001", dead: true},
		"row-level security":        {change: "CREATE POLICY few ON raw_crypto_data USING (true) WITH CHECK (false); ALTER TABLE raw_crypto_data ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY", want: "42501", dead: true},
		"no return":                 {change: trigger("BEFORE", ""), want: "2F005"},
		"what it needs is missing":  {change: trigger("BEFORE", "PERFORM FROM nowhere; RETURN NEW;"), want: "42P01"},
		"missing, after":            {change: trigger("AFTER", "INSERT INTO audit SELECT NEW.*; RETURN NULL;"), want: "42P01"},
		"no right to what it needs": {change: "CREATE TABLE audit (x int); " + trigger("BEFORE", "INSERT INTO audit VALUES (1); RETURN NEW;"), want: "42501"},
		"no right":                  {change: "REVOKE INSERT ON raw_crypto_data FROM writer", want: "42501"},
		"canceled":                  {change: trigger("BEFORE", "PERFORM pg_cancel_backend(pg_backend_pid()); PERFORM pg_sleep(100); RETURN NEW;") + "; ALTER FUNCTION objects() SECURITY DEFINER", want: "57014"},
	} {
		t.Run(name, func(t *testing.T) {
			b, s := asRole(t, c.change)
			fence := b.claim(0, 100)
			batch := b.batch(0, many(3, time.Now())...)
			err := s.Commit(t.Context(), b.target, fence, batch)
			if c.dead {
				if err != nil || len(batch.Dead) != 3 || !strings.Contains(batch.Dead[0].Reason, c.want) {
					t.Errorf("%v, dead letters %q", err, reasons(batch))
				}
				return
			}
			if !errors.Is(err, store.ErrBlocked) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v", err)
			}
			b.has(map[string]string{rows: "0", position: "0", dead: "0"})
		})
	}
}

// asRole opens a store as a role that owns the table and nothing else of it, once the table was changed.
func asRole(t *testing.T, change string) (*bench, *store.Store) {
	t.Helper()
	b := newBench(t, store.Options{})
	b.exec(`DO $$ DECLARE here text := current_schema(); BEGIN
		BEGIN CREATE ROLE writer; EXCEPTION WHEN duplicate_object THEN NULL; END;
		ALTER TABLE raw_crypto_data OWNER TO writer;
		EXECUTE format('GRANT ALL ON SCHEMA cryptoviz, %I TO writer', here);
		EXECUTE format('GRANT ALL ON ALL TABLES IN SCHEMA cryptoviz, %I TO writer', here);
	END $$`)
	b.exec(change)
	cfg, err := pgxpool.ParseConfig(b.url)
	if err != nil {
		t.Fatal(err)
	}
	cfg.ConnConfig.RuntimeParams["search_path"] = b.text("current_schema()")
	cfg.ConnConfig.RuntimeParams["role"] = "writer"
	s, err := store.Open(t.Context(), cfg, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return b, s
}
