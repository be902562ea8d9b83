source {
  description = "OKX spot: ticker of each market, by WebSocket"
  homepage    = "https://www.okx.com"
  attribution = "Data: OKX"
}

param "pairs" {
  description = "BASE/QUOTE."
  type        = list(string)
  default     = ["BTC/USDT"]
}

stream {
  url = "wss://ws.okx.com:8443/ws/v5/public"
  subscribe = [jsonencode({
    op   = "subscribe"
    args = [for p in param.pairs : { channel = "tickers", instId = replace(p, "/", "-") }]
  })]
  ping       = "ping" # OKX wants the text, and answers "pong"
  ping_every = "20s"
  silence    = "45s"
}

decode "json" {
  when    = try(body.arg.channel == "tickers" && length(body.data) > 0, false)
  error   = try(body.event == "error" ? "${body.code}: ${body.msg}" : null, null)
  records = body.data
  key     = r.instId
}

row {
  time             = from_unix_ms(r.ts)
  source           = source
  base             = market(r.instId).base
  quote            = market(r.instId).quote
  price            = r.last
  bid              = r.bidPx
  ask              = r.askPx
  high_24h         = r.high24h
  low_24h          = r.low24h
  volume_24h       = r.vol24h
  quote_volume_24h = r.volCcy24h
  change_24h_pct   = (number(r.last) / number(r.open24h) - 1) * 100
  skip             = r.instType != "SPOT" # the channel carries futures and swaps too
}
