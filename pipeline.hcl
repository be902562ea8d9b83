# The pipeline: what is collected, how often, and where it goes.
# Edit it, then: cryptoviz validate, cryptoviz plan, cryptoviz apply, cryptoviz run. All on one machine: cryptoviz up.

cryptoviz {
  required_version = ">= 0.1"
}

variable "pairs" {
  description = "Markets to follow on venues that quote in tethers, BASE/QUOTE."
  type        = list(string)
  default     = ["BTC/USDT", "ETH/USDT", "SOL/USDT"]
}

variable "usd_pairs" {
  description = "Markets to follow on venues that quote in US dollars, BASE/QUOTE."
  type        = list(string)
  default     = ["BTC/USD", "ETH/USD", "SOL/USD"]
}

# --- where things run ----------------------------------------------------------------------------

kafka {
  brokers = split(",", env("KAFKA_BROKERS", "localhost:9092"))
}

database {
  url        = env("DATABASE_URL", "postgres://cryptoviz@localhost:5432/cryptoviz")
  on_missing = "degrade" # a server without TimescaleDB: "degrade" to native partitions, or "error"
}

grafana {
  url  = env("GRAFANA_URL", "http://localhost:3000")
  auth = env("GRAFANA_AUTH", "") # a service-account token, or user:password; empty: Grafana is left out
}

# --- sources: each at its own interval, onto a topic of its own ------------------------------------

source "binance" {
  definition = "sources/binance.hcl"
  interval   = "1m"
  params     = { pairs = var.pairs }
  topic      = topic.binance
  table      = table.raw_crypto_data
}

source "kraken" {
  definition = "sources/kraken.hcl"
  interval   = "1m"
  offset     = "5s"
  params     = { pairs = var.usd_pairs }
  topic      = topic.kraken
  table      = table.raw_crypto_data
}

source "coinbase" {
  definition = "sources/coinbase.hcl"
  interval   = "1m"
  params     = { pairs = var.usd_pairs }
  topic      = topic.coinbase
  table      = table.raw_crypto_data
}

source "fear_greed" {
  definition = "sources/fear_greed.hcl"
  interval   = "1h"
  jitter     = "30s"
  topic      = topic.fear_greed
  table      = table.crypto_sentiment
}

source "okx" {
  enabled    = false # its terms allow personal use only: read them, then set true
  definition = "sources/okx.hcl"
  interval   = "1m"
  params     = { pairs = var.pairs }
  topic      = topic.okx
  table      = table.raw_crypto_data
}

topic "binance" {
  partitions = 1
  retention  = "7d"
}

topic "kraken" {
  partitions = 1
  retention  = "7d"
}

topic "coinbase" {
  partitions = 1
  retention  = "7d"
}

topic "fear_greed" {
  partitions = 1
  retention  = "30d"
}

topic "okx" {
  partitions = 1
  retention  = "7d"
}

# --- tables ----------------------------------------------------------------------------------------

table "raw_crypto_data" {
  description = "The current day: one sample a minute of each source and market."
  column "time" { type = "timestamptz" }
  column "source" { type = "text" }
  column "base" { type = "text" }
  column "quote" { type = "text" }
  column "price" {
    type = "double precision"
    unit = "price"
  }
  column "bid" {
    type = "double precision"
    null = true
    unit = "price"
  }
  column "ask" {
    type = "double precision"
    null = true
    unit = "price"
  }
  column "high_24h" {
    type = "double precision"
    null = true
    unit = "price"
  }
  column "low_24h" {
    type = "double precision"
    null = true
    unit = "price"
  }
  column "volume_24h" {
    description = "Rolling 24 hours, in the base currency. Never sum it."
    type        = "double precision"
    null        = true
    unit        = "base"
  }
  column "quote_volume_24h" {
    description = "Rolling 24 hours, in the quote currency. Never sum it."
    type        = "double precision"
    null        = true
    unit        = "quote"
  }
  column "change_24h_pct" {
    type = "double precision"
    null = true
    unit = "percent"
  }
  primary_key = ["source", "base", "quote", "time"]
  hypertable {
    time           = "time"
    chunk_interval = "1d"
  }
}

table "crypto_data_hourly" {
  description = "History by the hour: open, high, low, close of the samples, and how complete they are."
  column "time" { type = "timestamptz" }
  column "source" { type = "text" }
  column "base" { type = "text" }
  column "quote" { type = "text" }
  column "open" {
    type = "double precision"
    unit = "price"
  }
  column "high" {
    type = "double precision"
    unit = "price"
  }
  column "low" {
    type = "double precision"
    unit = "price"
  }
  column "close" {
    type = "double precision"
    unit = "price"
  }
  column "mean" {
    type = "double precision"
    unit = "price"
  }
  column "volume_24h" {
    description = "The last rolling 24-hour volume seen in the hour, in the base currency."
    type        = "double precision"
    null        = true
    unit        = "base"
  }
  column "samples" {
    type = "bigint"
    unit = "count"
  }
  column "expected" {
    description = "Samples that the source's interval would have given."
    type        = "bigint"
    unit        = "count"
  }
  column "coverage" {
    description = "samples / expected, at most 1."
    type        = "double precision"
    null        = true
    generated   = "least(1, samples::double precision / nullif(expected, 0))"
  }
  column "first_time" { type = "timestamptz" }
  column "last_time" { type = "timestamptz" }
  primary_key = ["source", "base", "quote", "time"]
  hypertable {
    time           = "time"
    chunk_interval = "30d"
  }
}

table "crypto_sentiment" {
  description = "Fear & Greed Index, 0 (extreme fear) to 100 (extreme greed). Data: Alternative.me."
  column "time" { type = "timestamptz" }
  column "source" { type = "text" }
  column "value" {
    type = "integer"
    unit = "index"
  }
  column "classification" { type = "text" }
  primary_key = ["source", "time"]
}

# --- the day's end: 00:05 UTC ----------------------------------------------------------------------

rollup "hourly" {
  schedule = "5 0 * * *"
  from     = table.raw_crypto_data
  into     = table.crypto_data_hourly
  query    = file("sql/rollup_hourly.sql")
  keep_raw = "0d"    # the finished day's raw rows go with its rollup, in one transaction
  late     = "merge" # rows of a day that is rolled up already join their hour

  merge {
    count = "samples"
    first = "first_time"
    last  = "last_time"
    columns = {
      open       = "first"
      high       = "max"
      low        = "min"
      close      = "last"
      mean       = "mean"
      volume_24h = "last"
      samples    = "sum"
      expected   = "max"
      first_time = "min"
      last_time  = "max"
    }
  }
}

# --- what Grafana shows ----------------------------------------------------------------------------

folder "crypto" {
  title = "Crypto"
}

datasource "cryptoviz" {
  uid      = "cryptoviz"
  host     = env("GRAFANA_DB_HOST", "localhost:5432") # as Grafana sees the database
  database = "cryptoviz"
  user     = env("GRAFANA_DB_USER", "grafana") # it needs to read, nothing more
  password = env("GRAFANA_DB_PASSWORD", "")
  sslmode  = env("GRAFANA_DB_SSLMODE", "disable")
}

dashboard "market_overview" {
  file       = "dashboards/market_overview.json"
  folder     = folder.crypto
  datasource = datasource.cryptoviz
}
