package run

import "github.com/prometheus/client_golang/prometheus"

var (
	connectsDesc = describe("stream_connects_total", "Connections made to a source's stream.", "source")
	strangeDesc  = describe("stream_frames_not_understood_total",
		"Frames that could not be read as the definition says.", "source")
	saidDesc    = describe("stream_errors_total", "Failures that the source reported in its stream.", "source")
	droppedDesc = describe("stream_records_dropped_total", "Records beyond what a slot takes.", "source")
)

func (e *Engine) collectStreams(counter func(d *prometheus.Desc, v float64, labels ...string)) {
	for _, s := range e.streams {
		n := s.conn.Stats()
		counter(connectsDesc, float64(n.Connects), s.source)
		counter(strangeDesc, float64(n.Strange), s.source)
		counter(saidDesc, float64(n.Errors), s.source)
		counter(droppedDesc, float64(s.box.droppedSoFar()), s.source)
	}
}
