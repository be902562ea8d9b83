source {
  description = "Coinbase Exchange: ticker_batch of each market, by WebSocket"
  homepage    = "https://exchange.coinbase.com"
  attribution = "Data: Coinbase"
}

param "pairs" {
  description = "BASE/QUOTE."
  type        = list(string)
  default     = ["BTC/USD"]
}

stream {
  url = "wss://ws-feed.exchange.coinbase.com"
  subscribe = [jsonencode({
    type        = "subscribe"
    product_ids = [for p in param.pairs : replace(p, "/", "-")]
    channels    = ["ticker_batch"]
  })]
  silence = "30s" # a batch comes each 5 s
}

decode "json" {
  when    = body.type == "ticker"
  error   = body.type == "error" ? "${body.message}: ${body.reason}" : null
  records = body
  key     = r.product_id
}

row {
  time           = from_rfc3339(r.time)
  source         = source
  base           = market(r.product_id).base
  quote          = market(r.product_id).quote
  price          = r.price
  bid            = r.best_bid
  ask            = r.best_ask
  high_24h       = r.high_24h
  low_24h        = r.low_24h
  volume_24h     = r.volume_24h
  change_24h_pct = (number(r.price) / number(r.open_24h) - 1) * 100
}
