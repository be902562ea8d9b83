package row_test

import (
	"fmt"
	"os"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/decode"
	"github.com/cryptoviz/cryptoviz/engine/load"
	"github.com/cryptoviz/cryptoviz/engine/row"
)

// A reply becomes records, and a record a row, as the source's definition says. The rows are in the binary form of COPY.
func ExampleCompile() {
	p, diags := load.Load(os.DirFS("../.."), "pipeline.hcl", load.Options{})
	if diags.HasErrors() {
		fmt.Println(diags)
		return
	}
	source := p.Sources[0] // binance
	decoder, err := decode.NewDecoder(source)
	if err != nil {
		fmt.Println(err)
		return
	}
	records, err := decoder.Records([]byte(`[{"symbol": "BTCUSDT", "lastPrice": "70000.5", "closeTime": 1790856000000}]`))
	if err != nil {
		fmt.Println(err)
		return
	}
	program, err := row.Compile(source)
	if err != nil {
		fmt.Println(err)
		return
	}
	var rows row.Rows
	slot := time.Date(2026, 10, 1, 11, 20, 0, 0, time.UTC)
	for i, r := range records {
		if err := program.Append(&rows, row.Record{Key: r.Key, Value: r.Value, Slot: slot}, int32(i)); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println(records[0].Key, len(rows.Ends), time.UnixMicro(rows.Times[0]).UTC())
	// Output: BTCUSDT 1 2026-10-01 12:00:00 +0000 UTC
}
