source {
  description = "Crypto Fear & Greed Index, read from the page itself"
  homepage    = "https://alternative.me/crypto/fear-and-greed-index/"
  attribution = "Data: Alternative.me"
}

poll {
  url     = "https://alternative.me/crypto/fear-and-greed-index/"
  timeout = "20s"
  retries = 3
}

decode "html" {
  select = "div.fng-value" # Now, Yesterday, Last week, Last month
  key    = "fear_greed"
  field "label" { select = ".gray" }
  field "classification" { select = ".status" }
  field "value" { select = ".fng-circle" }
}

row {
  time           = slot # the page gives a day, not a time
  source         = source
  value          = r.value
  classification = r.classification
  skip           = r.label != "Now"
}
