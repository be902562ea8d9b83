grafana {
  url     = "https://grafana.example.com/sub/"
  auth    = env("CANARY")
  timeout = "20s"
}

view "latest" {
  description = "The newest price."
  query       = "SELECT DISTINCT ON (source) source, price FROM raw ORDER BY source, time DESC;"
}

aggregate "candles" {
  description = "Hours."
  from        = table.ticks
  query       = "SELECT time_bucket('1 h', time) AS hour, max(price) AS high FROM ticks GROUP BY 1"
  real_time   = true
  retention   = "365d"
  refresh {
    start = "3h"
    end   = "10m"
    every = "30m"
  }
}

table "ticks" {
  column "time" { type = "timestamptz" }
  column "market" { type = "text" }
  column "price" {
    type = "double precision"
    was  = "prize"
  }
  primary_key = ["market", "time"]
  hypertable {
    time           = "time"
    chunk_interval = "6h"
    retention      = "90d"
    columnstore {
      after      = "7d"
      segment_by = ["market"]
      order_by   = ["time desc"]
    }
  }
}

role "reader" {
  login             = true
  password          = env("CANARY")
  read_only         = true
  statement_timeout = "30s"
  grant {
    privileges = ["SELECT", "select"]
    on         = [table.ticks, view.latest, aggregate.candles, cryptoviz, view["latest"]]
  }
  grant {
    privileges = ["update", "insert"]
    on         = [table.mood]
  }
}

folder "ops" { title = "Ops" }

folder "alerts" {
  title  = "Alerts"
  parent = folder.ops
}

datasource "main_db" {
  title        = "Market"
  uid          = "market"
  host         = "db:5433"
  database     = "market"
  user         = "reader"
  password     = env("CANARY")
  sslmode      = "verify-ca"
  min_interval = "10s"
  default      = true
}

datasource "own_db" {}

dashboard "market" {
  file       = "dashboards/market.json"
  folder     = folder.ops
  datasource = datasource.main_db
}

dashboard "own_uid" { file = "./dashboards/own.json" }

alert "stale_feed" {
  title       = "No price"
  folder      = folder.alerts
  datasource  = datasource.main_db
  query       = file("sql/hourly.sql")
  above       = 3
  for         = "10m"
  every       = "30s"
  no_data     = "alert"
  labels      = { severity = "page" }
  summary     = "Nothing from {{ $labels.source }}"
  description = "See the log."
}

alert "low" {
  title      = "Low"
  folder     = folder.ops
  datasource = datasource.own_db
  query      = "SELECT 1 AS value"
  below      = -0.5
}

removed { object = topic.legacy }

removed { object = role["writer"] }
