poll {
  url = "https://page.example.com/"
}

decode "html" {
  select = "div.value"
  field "value" { select = ".circle" }
}

row {
  time  = slot
  value = r.value
}
