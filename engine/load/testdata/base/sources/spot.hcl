source {
  description = "A market by market ticker."
}

param "pairs" {
  type    = list(string)
  default = []
}

param "token" {
  type    = string
  default = ""
}

poll {
  url     = "https://api.example.com/ticker"
  query   = { symbols = join(",", param.pairs) }
  headers = { X-Token = param.token }
  timeout = "10s"
  budget "spot" {
    limit = 100
    per   = "1m"
    cost  = 2
  }
}

decode "json" {
  error   = try(body.error, null)
  records = body.data
  key     = r.symbol
}

row {
  time   = from_unix_ms(r.time)
  source = source
  base   = market(r.symbol).base
  price  = r.last
  volume = r.volume
}
