package run

import (
	"context"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	buildDesc  = describe("build_info", "The program and the Go that built it.", "version", "go")
	readyDesc  = describe("ready", "1 while the engine can do its work, as /readyz says.")
	ledgerDesc = describe("ledger_reachable",
		"1 while PostgreSQL, which holds the slot ledger, answers within two seconds.")
	kafkaDesc = describe("kafka_reachable", "1 while Kafka answers within two seconds.")
	jobDesc   = describe("timescale_job_failing",
		"1 while a policy of TimescaleDB fails, crashes or does not run: retention, columnstore or refresh.", "job",
		"table")
	lastDayDesc = describe("rollup_last_day_timestamp_seconds", "Newest day that is rolled up, its midnight.",
		"rollup")
	dueDesc = describe("rollup_days_due", "Days with raw rows that should be rolled up by now, and are not.",
		"rollup")
	lateRowsDesc = describe("rollup_late_rows_total",
		"Rows that came after their day was rolled up: merged, or rejected.", "rollup")
)

// collectHealth tells what the servers answer. What they do not is left out.
func (e *Engine) collectHealth(gauge func(d *prometheus.Desc, v float64, labels ...string)) {
	h := e.look(context.Background())
	gauge(buildDesc, 1, e.opt.Version, runtime.Version())
	gauge(readyDesc, truth(e.wrong(h) == nil))
	gauge(ledgerDesc, truth(h.ledger == nil))
	gauge(kafkaDesc, truth(h.kafka == nil))
	for _, j := range h.jobs {
		gauge(jobDesc, truth(j.Failing), j.Name, j.Table)
	}
	for _, r := range h.rollups {
		if day, err := time.Parse(time.DateOnly, r.Day); err == nil {
			gauge(lastDayDesc, float64(day.Unix()), r.Name)
		}
		if r.Due >= 0 {
			gauge(dueDesc, float64(r.Due), r.Name)
		}
		gauge(lateRowsDesc, float64(r.LateRows), r.Name)
	}
}

func truth(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
