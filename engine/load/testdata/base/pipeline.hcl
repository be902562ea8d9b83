cryptoviz {
  required_version = ">= 0.1"
}

variable "pairs" {
  type    = list(string)
  default = ["BTC/USD"]
}

variable "token" {
  type      = string
  default   = ""
  sensitive = true
}

kafka {
  brokers = ["localhost:9092"]
}

database {
  url        = env("DATABASE_URL", "postgres://cryptoviz@localhost/cryptoviz")
  on_missing = "degrade"
}

topic "spot" {
  partitions = 1
  retention  = "7d"
}

topic "feed" {}

topic "page" {}

source "spot" {
  definition = "sources/spot.hcl"
  interval   = "1m"
  params     = { pairs = var.pairs, token = var.token }
  topic      = topic.spot
  table      = table.raw
}

source "feed" {
  definition = "sources/feed.hcl"
  interval   = "1m"
  topic      = topic.feed
  table      = table.raw
}

source "page" {
  definition = "sources/page.hcl"
  interval   = "1h"
  topic      = topic.page
  table      = table.mood
}

table "raw" {
  column "time" { type = "timestamptz" }
  column "source" { type = "text" }
  column "base" { type = "text" }
  column "price" {
    type = "double precision"
    unit = "price"
  }
  column "volume" {
    type = "double precision"
    null = true
  }
  primary_key = ["source", "base", "time"]
  hypertable {
    time           = "time"
    chunk_interval = "1d"
  }
}

table "hourly" {
  column "time" { type = "timestamptz" }
  column "source" { type = "text" }
  column "base" { type = "text" }
  column "mean" { type = "double precision" }
  column "samples" { type = "bigint" }
  column "coverage" {
    type      = "double precision"
    null      = true
    generated = "samples / 60.0"
  }
  primary_key = ["source", "base", "time"]
}

table "mood" {
  column "time" { type = "timestamptz" }
  column "value" { type = "integer" }
  primary_key = ["time"]
}

rollup "hourly" {
  schedule = "5 0 * * *"
  from     = table.raw
  into     = table.hourly
  query    = file("sql/hourly.sql")
  keep_raw = "0d"
  merge {
    count   = "samples"
    columns = { mean = "mean", samples = "sum" }
  }
}
