stream {
  url       = "wss://feed.example.com"
  subscribe = [jsonencode({ channel = "ticker" })]
  silence   = "15s"
}

decode "json" {
  when = body.type == "ticker"
}

row {
  time   = slot
  source = source
  base   = r.base
  price  = r.price
}
