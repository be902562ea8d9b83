package load_test

import (
	"fmt"
	"os"
	"testing/fstest"

	"github.com/cryptoviz/cryptoviz/engine/load"
)

// The shipped pipeline, as values.
func ExampleLoad() {
	p, diags := load.Load(os.DirFS("../.."), "pipeline.hcl", load.Options{})
	fmt.Println(diags.HasErrors())
	for _, s := range p.Sources[:2] {
		fmt.Println(s.Name, s.Interval, s.Topic.Name, s.Table.Name)
	}
	// Output:
	// false
	// binance 1m0s binance raw_crypto_data
	// kraken 1m0s kraken raw_crypto_data
}

// What is wrong is told with its place and a remedy; the environment is what the caller says.
func ExampleLoad_mistake() {
	files := fstest.MapFS{"pipeline.hcl": {Data: []byte(`kafka {
  brokers = ["localhost:9092"]
}
database {
  url = env("DATABASE_URL")
}
topic "trades" {
  retention = 7d
}
`)}}
	env := func(name string) (string, bool) { return "postgres://localhost/crypto", name == "DATABASE_URL" }
	_, diags := load.Load(files, "pipeline.hcl", load.Options{Env: env})
	_ = diags.Write(os.Stdout, false, 80)
	// Output:
	// Error: Quotes missing
	//   pipeline.hcl:8:15, in topic "trades":
	//      8 |   retention = 7d
	//        |               ^^
	//   A duration or a size is written in quotes: "7d".
}
