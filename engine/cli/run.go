package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/cryptoviz/cryptoviz/engine/clock"
	"github.com/cryptoviz/cryptoviz/engine/run"
	"github.com/cryptoviz/cryptoviz/engine/serve"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/ledger"
)

func (e *env) newRun() *cobra.Command {
	var only []string
	var listen, instance string
	c := &cobra.Command{
		Use:   "run",
		Short: "Run the pipeline against the Kafka and PostgreSQL that pipeline.hcl names",
		Long: `Run the stages of the pipeline until Ctrl-C or SIGTERM: schedule (fetch each source in its slots and put the records
on its topic), work (store them in its table) and rollup (aggregate the finished day at 00:05 UTC).

Any number of instances may run side by side, each with all stages or some: a slot is fetched by one of them, a topic
is stored by one of them, and a row is never doubled. One that was killed goes on at once when it is started again: it
has its name among the instances back, which the database holds for whoever is connected. Run cryptoviz apply before. A
Kafka cluster that is not the one of the last apply is refused; cryptoviz apply --moved kafka says that the topics
moved. Other commands use the services of a cryptoviz up that runs in --state; run never does.`,
		Example: "  cryptoviz run\n  cryptoviz run --only work,rollup --listen :9464 --log-format json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			stages, names, err := parseStages(only)
			if err != nil {
				return err
			}
			p, err := e.load()
			if err != nil {
				return err
			}
			log, err := e.logger(e.Stderr)
			if err != nil {
				return err
			}
			e.passUp()
			db, err := e.database(cmd.Context(), p)
			if err != nil {
				return err
			}
			defer db.Close()
			kafka, err := e.brokers(cmd.Context(), p)
			if err != nil {
				return err
			}
			err = sameCluster(cmd.Context(), p, db, kafka)
			kafka.Close()
			db.Close()
			if err != nil {
				return err
			}
			host, _ := os.Hostname()
			engine, err := run.Open(cmd.Context(), p, stages, run.Options{
				Clock: clock.Real(), Log: log, Owner: fmt.Sprintf("%s/%d", host, os.Getpid()), Instance: instance,
				Version: e.Version,
			})
			if err != nil {
				return err
			}
			defer engine.Close()
			group, ctx := errgroup.WithContext(cmd.Context())
			if listen != "" {
				l, err := serve.Listen(ctx, listen)
				if err != nil {
					return err
				}
				group.Go(func() error { return serve.Run(ctx, l, serve.Handler(engine.Ready, engine), log) })
				log.Info("metrics", "url", "http://"+l.Addr().String()+"/metrics")
			}
			group.Go(func() error { return engine.Run(ctx) })
			log.Info("running", "pipeline", e.file, "stages", strings.Join(names, ","))
			err = group.Wait()
			log.Info("stopped")
			return err
		},
	}
	c.Flags().StringSliceVar(&only, "only", []string{"schedule", "work", "rollup"},
		"the `STAGES` that this instance runs")
	c.Flags().StringVar(&listen, "listen", defaultListen,
		"`HOST:PORT` of /metrics, /healthz and /readyz; \"\" for none")
	c.Flags().StringVar(&instance, "instance", "",
		"a `NAME` in the consumer groups, distinct for each instance: a stop and a start then move no partitions; default: one that the database gives")
	return c
}

// sameCluster refuses a Kafka cluster that is not the one on which the last apply made the topics: it has other
// records, under the same names and offsets.
func sameCluster(ctx context.Context, p *spec.Pipeline, db *pgxpool.Pool, kafka *kgo.Client) error {
	entries, err := (&ledger.Ledger{DB: db}).Entries(ctx)
	if err != nil {
		return err
	}
	for _, t := range p.Topics {
		there := entries["topic."+t.Name].Server
		if there == "" {
			continue
		}
		here, err := kadm.NewClient(kafka).BrokerMetadata(ctx)
		switch {
		case err != nil:
			return fmt.Errorf("read the id of the Kafka cluster: %w", err)
		case here.Cluster == "" || here.Cluster == there:
			return nil
		}
		return fmt.Errorf("the last apply made topic.%s on Kafka cluster %s, and %s is cluster %s. Set KAFKA_BROKERS "+
			"to the former; "+
			"if the topics moved on purpose: cryptoviz apply --moved kafka", t.Name, there,
			strings.Join(p.Kafka.Brokers, ", "), here.Cluster)
	}
	return nil
}

// parseStages returns also the names, each once.
func parseStages(only []string) (s run.Stages, names []string, err error) {
	for _, name := range only {
		name = strings.TrimSpace(name)
		switch name {
		case "schedule":
			s.Schedule = true
		case "work":
			s.Work = true
		case "rollup":
			s.Rollup = true
		default:
			return s, nil, oneOf("only", name, "schedule", "work", "rollup")
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return s, nil, errors.New("--only names no stage: use schedule, work, rollup")
	}
	return s, names, nil
}
