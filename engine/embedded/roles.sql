-- The roles of the private PostgreSQL; on any of its databases, as the superuser.
DO $$
DECLARE
  name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['cryptoviz', 'cryptoviz_reader'] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
      EXECUTE format('CREATE ROLE %I', name);
    END IF;
    EXECUTE format('ALTER ROLE %I LOGIN NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS', name);
  END LOOP;
END $$;

ALTER ROLE cryptoviz_reader SET default_transaction_read_only = on;
