source {
  description = "Binance spot: 24-hour ticker of each market"
  homepage    = "https://www.binance.com"
  attribution = "Data: Binance"
}

param "pairs" {
  description = "BASE/QUOTE; empty means every market."
  type        = list(string)
  default     = []
}

param "quotes" {
  description = "What a symbol may end in that is none of the pairs: it has no separator."
  type        = list(string)
  default = [
    "USDT", "USDC", "FDUSD", "TUSD", "BUSD", "DAI", "USDP", "PAX", "USDS", "USD1", "EURI", "BTC", "ETH", "BNB", "XRP", "TRX", "SOL", "DOGE", "VAI",
    "EUR", "GBP", "AUD", "TRY", "BRL", "ARS", "MXN", "COP", "PLN", "RON", "CZK", "UAH", "ZAR", "NGN", "RUB", "JPY", "GYEN", "IDRT", "BIDR", "BKRW", "BVND",
  ]
}

poll {
  url     = "https://data-api.binance.vision/api/v3/ticker/24hr"
  query   = length(param.pairs) == 0 ? {} : { symbols = jsonencode([for p in param.pairs : replace(p, "/", "")]) }
  timeout = "10s"
  retries = 3
  budget "binance" { # shared by every source that names it
    limit = 6000
    per   = "1m"
    cost  = length(param.pairs) == 0 || length(param.pairs) > 100 ? 80 : length(param.pairs) > 20 ? 40 : 2
    used  = header["X-MBX-USED-WEIGHT-1M"]
  }
}

decode "json" {
  error   = try("${body.code}: ${body.msg}", null)
  records = body
  key     = r.symbol
}

row {
  time             = from_unix_ms(r.closeTime)
  source           = source
  base             = market(r.symbol, param.pairs, param.quotes).base
  quote            = market(r.symbol, param.pairs, param.quotes).quote
  price            = r.lastPrice # "64123.10" or 64123.10: both are numbers; "" and null are missing
  bid              = r.bidPrice
  ask              = r.askPrice
  high_24h         = r.highPrice
  low_24h          = r.lowPrice
  volume_24h       = r.volume
  quote_volume_24h = r.quoteVolume
  change_24h_pct   = r.priceChangePercent
  skip             = r.count == 0 # a halted market
}
