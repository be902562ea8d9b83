-- One finished day, by the hour. $1 and $2 are the day's start and end; the engine merges the result into
-- crypto_data_hourly (see `merge` in pipeline.hcl) and drops the day's raw rows in the same transaction.
-- Samples, not trades: open, high, low and close are of the polled prices. The 24-hour volume is a rolling
-- number of the source, so the hour keeps the last one seen and never adds.
-- What was due is in the slot ledger: the source may have another interval by now. An hour in whose middle
-- it began counts as a whole one.
WITH due AS (
  SELECT
    source,
    slot,
    lead(slot) OVER (PARTITION BY source ORDER BY slot) - slot AS every
  FROM cryptoviz.slot
  WHERE slot >= $1 AND slot < $2
),

expected AS (
  SELECT
    source,
    date_bin('1 hour', slot, timestamptz '2000-01-01 00:00+00') AS time,
    greatest(count(*), round(3600 / extract(EPOCH FROM max(every))))::bigint AS slots
  FROM due
  GROUP BY 1, 2
)

SELECT
  date_bin('1 hour', r.time, timestamptz '2000-01-01 00:00+00') AS time,
  r.source,
  r.base,
  r.quote,
  (array_agg(r.price ORDER BY r.time))[1] AS open,
  max(r.price) AS high,
  min(r.price) AS low,
  (array_agg(r.price ORDER BY r.time DESC))[1] AS close,
  avg(r.price) AS mean,
  (array_agg(r.volume_24h ORDER BY r.time DESC) FILTER (WHERE r.volume_24h IS NOT NULL))[1] AS volume_24h,
  count(*) AS samples,
  coalesce(max(e.slots), max(s.per_hour), 60) AS expected,
  min(r.time) AS first_time,
  max(r.time) AS last_time
FROM raw_crypto_data AS r
LEFT JOIN cryptoviz.source AS s ON s.name = r.source
LEFT JOIN expected AS e
  ON e.source = r.source AND e.time = date_bin('1 hour', r.time, timestamptz '2000-01-01 00:00+00')
WHERE r.time >= $1 AND r.time < $2
GROUP BY 1, 2, 3, 4
