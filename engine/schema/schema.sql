-- The engine's own tables. Safe to run again; every change of it raises schema_version and comes with its migration.
DO $$ BEGIN
  IF to_regnamespace('cryptoviz') IS NULL THEN -- the statement wants the right to make one also where it is there
    CREATE SCHEMA IF NOT EXISTS cryptoviz;
  END IF;
END $$;

-- Facts about this database: schema_version; mode: live, simulated or recorded, for good; salt: of the hashes of secrets in
-- managed; ledger: a random id that a copy of the database has, too; database: the server and the database of the last apply,
-- which a copy has not.
CREATE TABLE IF NOT EXISTS cryptoviz.meta (
  key   text PRIMARY KEY,
  value text NOT NULL
);

-- The sources as pipeline.hcl declares them, for views, rollups and dashboards.
CREATE TABLE IF NOT EXISTS cryptoviz.source (
  name        text PRIMARY KEY,
  enabled     boolean NOT NULL,
  every       interval NOT NULL,
  per_hour    bigint NOT NULL,
  topic       text NOT NULL,
  table_name  text NOT NULL,
  description text NOT NULL DEFAULT '',
  attribution text NOT NULL DEFAULT '',
  updated_at  timestamptz NOT NULL DEFAULT now()
);
-- Since version 5: the pipeline that declares the source. '' is not known: rows of earlier versions.
ALTER TABLE cryptoviz.source ADD COLUMN IF NOT EXISTS pipeline text NOT NULL DEFAULT '';

-- How far each worker has come. It moves in the transaction that stores the rows; Kafka's own offsets are never read.
CREATE TABLE IF NOT EXISTS cryptoviz.position (
  source      text NOT NULL,
  partition   integer NOT NULL,
  topic       text NOT NULL,
  topic_id    uuid NOT NULL,
  next_offset bigint NOT NULL,
  epoch       bigint NOT NULL,
  last_slot   timestamptz,
  updated_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (source, partition)
);

-- The slot ledger: every due slot of every source ends here exactly once.
CREATE TABLE IF NOT EXISTS cryptoviz.slot (
  source      text NOT NULL,
  slot        timestamptz NOT NULL,
  state       text NOT NULL CHECK (state IN ('running', 'ok', 'not_modified', 'late', 'skipped', 'failed')),
  reason      text NOT NULL DEFAULT '',
  records     integer NOT NULL DEFAULT 0,
  attempt     integer NOT NULL DEFAULT 1,
  owner       text NOT NULL DEFAULT '',
  lease_until timestamptz NOT NULL,
  started_at  timestamptz NOT NULL DEFAULT now(),
  took        interval,
  PRIMARY KEY (source, slot)
);

-- The ledger is long, and what is under way in it is looked up for every slot.
CREATE INDEX IF NOT EXISTS slot_running ON cryptoviz.slot (source, slot) WHERE state = 'running';

-- Records that cannot become a row, as received, with the reason.
CREATE TABLE IF NOT EXISTS cryptoviz.dead_letter (
  id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  source    text NOT NULL,
  topic     text NOT NULL,
  topic_id  uuid NOT NULL,
  partition integer NOT NULL,
  "offset"  bigint NOT NULL,
  key       text NOT NULL,
  value     bytea NOT NULL,
  reason    text NOT NULL,
  at        timestamptz NOT NULL DEFAULT now(),
  UNIQUE (topic_id, partition, "offset", source)
);

-- Since version 3: what of them is counted. kind is the reason without the values in it.
ALTER TABLE cryptoviz.dead_letter ADD COLUMN IF NOT EXISTS kind text NOT NULL DEFAULT '';
CREATE INDEX IF NOT EXISTS dead_letter_at ON cryptoviz.dead_letter (at);

-- How many records of a partition could not become rows for one kind of reason in an hour, and between which offsets they are:
-- all of them, while only the first ones of the hour and samples are in dead_letter. Since version 3.
CREATE TABLE IF NOT EXISTS cryptoviz.dead_letter_hour (
  source      text NOT NULL,
  topic       text NOT NULL,
  topic_id    uuid NOT NULL,
  partition   integer NOT NULL,
  hour        timestamptz NOT NULL,
  kind        text NOT NULL,
  records     bigint NOT NULL,
  kept        bigint NOT NULL, -- of records: in dead_letter
  bytes       bigint NOT NULL, -- of the values of those
  from_offset bigint NOT NULL,
  to_offset   bigint NOT NULL,
  reason      text NOT NULL, -- the last one
  PRIMARY KEY (source, hour, kind, topic_id, partition)
);
INSERT INTO cryptoviz.dead_letter_hour (source, topic, topic_id, partition, hour, kind, records, kept, bytes, from_offset, to_offset, reason)
  SELECT source, min(topic), topic_id, partition, date_trunc('hour', at), kind, count(*), count(*), sum(octet_length(value)), min("offset"), max("offset") + 1, max(reason)
  FROM cryptoviz.dead_letter WHERE NOT EXISTS (SELECT FROM cryptoviz.dead_letter_hour)
  GROUP BY source, topic_id, partition, date_trunc('hour', at), kind;

-- The slots of days that left the slot ledger. Since version 3.
CREATE TABLE IF NOT EXISTS cryptoviz.slot_day (
  source  text NOT NULL,
  day     date NOT NULL,
  state   text NOT NULL,
  slots   bigint NOT NULL,
  records bigint NOT NULL,
  PRIMARY KEY (source, day, state)
);

-- Stretches of a topic that were gone before they could be read (retention, a re-created topic).
CREATE TABLE IF NOT EXISTS cryptoviz.gap (
  id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  source    text NOT NULL,
  topic     text NOT NULL,
  partition integer NOT NULL,
  from_offset bigint NOT NULL,
  to_offset   bigint NOT NULL,
  reason    text NOT NULL,
  at        timestamptz NOT NULL DEFAULT now()
);

-- Since version 3: the newest slot stored before the gap, and the first one after it: those between lost records. before_slot is
-- null until a record with a slot comes.
ALTER TABLE cryptoviz.gap ADD COLUMN IF NOT EXISTS after_slot timestamptz;
ALTER TABLE cryptoviz.gap ADD COLUMN IF NOT EXISTS before_slot timestamptz;

-- One row a rollup and day. dropped_at set: the day's raw rows are gone, later ones merge.
CREATE TABLE IF NOT EXISTS cryptoviz.rollup_day (
  rollup      text NOT NULL,
  day         date NOT NULL,
  raw_rows    bigint NOT NULL,
  hourly_rows bigint NOT NULL,
  late_rows   bigint NOT NULL DEFAULT 0,
  runs        integer NOT NULL DEFAULT 1,
  rolled_at   timestamptz NOT NULL,
  dropped_at  timestamptz,
  took        interval,
  PRIMARY KEY (rollup, day)
);

-- Samples of the slot that were stored already. Since version 3.
ALTER TABLE cryptoviz.slot ADD COLUMN IF NOT EXISTS repeats integer NOT NULL DEFAULT 0;

-- Raw rows of the day that had been counted before, and were removed. Since version 3.
ALTER TABLE cryptoviz.rollup_day ADD COLUMN IF NOT EXISTS repeats bigint NOT NULL DEFAULT 0;

-- The samples whose raw rows a rollup dropped, so that none is counted twice: by table, day and the primary key without its
-- time. The times are offsets from midnight UTC: whole milliseconds in ms, the others, in microseconds, in us. Since version 3.
CREATE TABLE IF NOT EXISTS cryptoviz.rolled_sample (
  table_name text NOT NULL,
  day        date NOT NULL,
  key        text[] NOT NULL,
  ms         integer[] NOT NULL,
  us         bigint[] NOT NULL,
  PRIMARY KEY (table_name, day, key)
);

-- One row a table that a rollup empties: the end of the newest day dropped, and a number that rises with each change of its
-- rolled_sample. What these say counts while into_table has rows. Since version 3.
CREATE TABLE IF NOT EXISTS cryptoviz.rolled_table (
  table_name text PRIMARY KEY,
  into_table text NOT NULL,
  until      timestamptz NOT NULL,
  version    bigint NOT NULL DEFAULT 1
);

-- 'live', 'simulated' or 'recorded': every dashboard shows it.
CREATE OR REPLACE VIEW cryptoviz.mode AS
  SELECT coalesce((SELECT value FROM cryptoviz.meta WHERE key = 'mode'), 'live') AS mode;

-- What the last apply set, object by object: tells what somebody changed outside from what pipeline.hcl changes. Secrets are
-- hashes. Since version 2.
CREATE TABLE IF NOT EXISTS cryptoviz.managed (
  address    text PRIMARY KEY,
  state      jsonb NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT now(),
  applied_by text NOT NULL,
  version    text NOT NULL
);

-- Since version 4: which server the object is on: Kafka's cluster id, PostgreSQL's system identifier and database, Grafana's URL
-- and org. '' is not known: rows of earlier versions, which the next apply fills in.
ALTER TABLE cryptoviz.managed ADD COLUMN IF NOT EXISTS server text NOT NULL DEFAULT '';
-- Since version 5: the pipeline that manages the object; '' as above.
ALTER TABLE cryptoviz.managed ADD COLUMN IF NOT EXISTS pipeline text NOT NULL DEFAULT '';

-- How long a rollup keeps raw rows at least: keep_raw of the last apply, one row a table. Since version 5.
CREATE TABLE IF NOT EXISTS cryptoviz.rollup_state (
  table_name text PRIMARY KEY,
  keep_raw   interval NOT NULL
);
INSERT INTO cryptoviz.rollup_state (table_name, keep_raw)
  SELECT substr(address, 7), (a->>'value')::interval FROM cryptoviz.managed, jsonb_array_elements(state->'attrs') AS a
  WHERE address LIKE 'table.%' AND a->>'name' = 'keep_raw'
  ON CONFLICT DO NOTHING;

-- Until when sources asked to wait (Retry-After), for all instances and over restarts. The name is that of a request budget, or of
-- a source that names none: "budget NAME" or "source NAME". Since version 3.
CREATE TABLE IF NOT EXISTS cryptoviz.pause (
  name   text PRIMARY KEY,
  until  timestamptz NOT NULL,
  reason text NOT NULL,
  at     timestamptz NOT NULL DEFAULT now()
);

-- What looks like a mistake of a source's definition, since when, and until when it was seen: an optional column whose path is in
-- no record of a slot, a skip that is true for all. Since version 3.
CREATE TABLE IF NOT EXISTS cryptoviz.hint (
  source text NOT NULL,
  kind   text NOT NULL,
  detail text NOT NULL,
  since  timestamptz NOT NULL,
  until  timestamptz NOT NULL,
  PRIMARY KEY (source, kind)
);

INSERT INTO cryptoviz.meta VALUES ('ledger', gen_random_uuid()::text) ON CONFLICT DO NOTHING;
INSERT INTO cryptoviz.meta VALUES ('schema_version', '5')
  ON CONFLICT (key) DO UPDATE SET value = excluded.value WHERE cryptoviz.meta.value IN ('1', '2', '3', '4');
