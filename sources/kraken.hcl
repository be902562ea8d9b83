source {
  description = "Kraken spot: ticker of each market"
  homepage    = "https://www.kraken.com"
  attribution = "Data: Kraken"
}

param "pairs" {
  description = "BASE/QUOTE; empty means every market in `markets`."
  type        = list(string)
  default     = []
}

param "markets" {
  description = "Kraken's own name of a market -> BASE/QUOTE."
  type        = map(string)
  default = {
    XXBTZUSD = "BTC/USD"
    XETHZUSD = "ETH/USD"
    SOLUSD   = "SOL/USD"
    XXRPZUSD = "XRP/USD"
    ADAUSD   = "ADA/USD"
    XDGUSD   = "DOGE/USD"
    XXBTZEUR = "BTC/EUR"
    XETHZEUR = "ETH/EUR"
    USDTZUSD = "USDT/USD"
  }
}

poll {
  url = "https://api.kraken.com/0/public/Ticker"
  query = {
    pair = join(",", [for name, pair in param.markets : name if length(param.pairs) == 0 || contains(param.pairs, pair)])
  }
  timeout = "10s"
  retries = 3
  budget "kraken" {
    limit = 15
    per   = "15s"
    cost  = 1
  }
}

decode "json" {
  error   = length(body.error) == 0 ? null : join("; ", body.error)
  records = body.result
  keyed   = true # {"XXBTZUSD": {…}, …}: the name is `key`
}

row {
  time             = slot # Kraken's ticker carries no time
  source           = source
  base             = market(lookup(param.markets, key, key)).base
  quote            = market(lookup(param.markets, key, key)).quote
  price            = r.c[0]
  bid              = r.b[0]
  ask              = r.a[0]
  high_24h         = r.h[1]
  low_24h          = r.l[1]
  volume_24h       = r.v[1]
  quote_volume_24h = number(r.v[1]) * number(r.p[1])
}
