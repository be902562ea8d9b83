-- What the roles of the private PostgreSQL may do in its database cryptoviz; there, as the superuser. One transaction.

-- A database of an older version belongs to the superuser, with all that is in it. It is the owner's from now on.
DO $$
DECLARE
  command text;
  me CONSTANT oid := (SELECT oid FROM pg_roles WHERE rolname = current_user);
BEGIN
  IF (SELECT datdba FROM pg_database WHERE datname = current_database()) <> me THEN
    RETURN;
  END IF;
  FOR command IN
    WITH ours AS (SELECT oid, nspname FROM pg_namespace WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND nspname !~ '^(pg_(toast_)?temp_|_timescaledb)'),
    extension AS (SELECT classid, objid FROM pg_depend WHERE deptype = 'e')
    SELECT x.command FROM (
      SELECT 1 AS n, format('ALTER SCHEMA %I OWNER TO cryptoviz', o.nspname) AS command, 'pg_namespace'::regclass AS class, o.oid AS oid
        FROM ours o JOIN pg_namespace s USING (oid) WHERE s.nspowner = me
      UNION ALL SELECT 2, format('ALTER %s %I.%I OWNER TO cryptoviz', CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, o.nspname, c.relname), 'pg_class'::regclass, c.oid
        FROM ours o JOIN pg_class c ON c.relnamespace = o.oid WHERE c.relowner = me AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
          AND NOT (c.relkind = 'S' AND EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype IN ('a', 'i')))
      UNION ALL SELECT 2, format('ALTER ROUTINE %s OWNER TO cryptoviz', p.oid::regprocedure), 'pg_proc'::regclass, p.oid
        FROM ours o JOIN pg_proc p ON p.pronamespace = o.oid WHERE p.proowner = me
      UNION ALL SELECT 2, format('ALTER TYPE %I.%I OWNER TO cryptoviz', o.nspname, t.typname), 'pg_type'::regclass, t.oid
        FROM ours o JOIN pg_type t ON t.typnamespace = o.oid LEFT JOIN pg_class c ON c.oid = t.typrelid
        WHERE t.typowner = me AND (t.typtype IN ('e', 'd', 'r') OR c.relkind = 'c')
      UNION ALL SELECT 3, format('ALTER DATABASE %I OWNER TO cryptoviz', current_database()), 'pg_database'::regclass, 0::oid
    ) x WHERE NOT EXISTS (SELECT FROM extension e WHERE e.classid = x.class AND e.objid = x.oid) ORDER BY x.n
  LOOP
    EXECUTE command;
  END LOOP;
  -- TimescaleDB hands chunks on with their hypertable, what an aggregate is made of only when that is named as one, and no
  -- policies, which it runs as who made them.
  IF to_regclass('_timescaledb_catalog.continuous_agg') IS NOT NULL THEN
    FOR command IN SELECT format('ALTER MATERIALIZED VIEW %I.%I OWNER TO cryptoviz', user_view_schema, user_view_name) FROM _timescaledb_catalog.continuous_agg LOOP
      EXECUTE command;
    END LOOP;
  END IF;
  IF to_regclass('_timescaledb_config.bgw_job') IS NOT NULL THEN
    UPDATE _timescaledb_config.bgw_job SET owner = 'cryptoviz'::regrole WHERE id >= 1000 AND owner = me::regrole;
  END IF;
END $$;

-- TimescaleDB, where the server has loaded it: it may be made by a superuser only.
DO $$
BEGIN
  IF current_setting('timescaledb.license', true) IS NOT NULL AND EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb') THEN
    CREATE EXTENSION IF NOT EXISTS timescaledb SCHEMA public;
  END IF;
END $$;

DO $$
BEGIN
  EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
END $$;
ALTER SCHEMA public OWNER TO cryptoviz; -- before PostgreSQL 15 it is the superuser's, and anybody may create in it
REVOKE CREATE ON SCHEMA public FROM PUBLIC;

-- The reader sees what the owner made and will make.
GRANT USAGE ON SCHEMA public TO cryptoviz_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE cryptoviz GRANT USAGE ON SCHEMAS TO cryptoviz_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE cryptoviz GRANT SELECT ON TABLES TO cryptoviz_reader;
DO $$
DECLARE
  command text;
BEGIN
  FOR command IN
    SELECT format('GRANT USAGE ON SCHEMA %I TO cryptoviz_reader', nspname) FROM pg_namespace
      WHERE nspowner = 'cryptoviz'::regrole AND NOT has_schema_privilege('cryptoviz_reader', oid, 'USAGE')
    UNION ALL SELECT format('GRANT SELECT ON %I.%I TO cryptoviz_reader', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE c.relowner = 'cryptoviz'::regrole AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^_timescaledb' AND NOT has_table_privilege('cryptoviz_reader', c.oid, 'SELECT')
  LOOP
    EXECUTE command;
  END LOOP;
END $$;

-- What everybody may call, and a reader has no use for: signals, locks that would hold the engine up, large objects.
-- The owner keeps the first two: the engine ends a writer that stands still, and one apply waits for another.
DO $$
DECLARE
  f record;
BEGIN
  FOR f IN SELECT oid::regprocedure AS name, proname FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace
    AND (proname IN ('pg_terminate_backend', 'pg_cancel_backend', 'pg_notify', 'pg_logical_emit_message') OR proname ~ '^pg_(try_)?advisory_' OR proname ~ '^lo(_|read$|write$)')
    AND has_function_privilege('public', oid, 'EXECUTE')
  LOOP
    EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f.name);
    IF f.proname !~ '^lo' THEN
      EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO cryptoviz', f.name);
    END IF;
  END LOOP;
END $$;
