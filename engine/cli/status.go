package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/cryptoviz/cryptoviz/engine/clock"
	"github.com/cryptoviz/cryptoviz/engine/embedded"
	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/status"
	"github.com/cryptoviz/cryptoviz/engine/store"
	"github.com/cryptoviz/cryptoviz/engine/terminal"
)

func (e *env) newStatus() *cobra.Command {
	var asJSON, watch bool
	var every time.Duration
	c := &cobra.Command{
		Use:   "status",
		Short: "Show how the pipeline is doing: last slots, records, lag, rollups",
		Long: `Read the slot ledger, the positions and the rollups from the database, and the topics' ends from Kafka, and show
how the pipeline is doing. It works from any machine that reaches both; nothing needs to run here.`,
		Example: "  cryptoviz status --watch\n  cryptoviz status --json | jq '.sources[] | {name, state, lag}'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if every <= 0 {
				return fmt.Errorf("--every %s is no time between two looks: use 2s, for one", every)
			}
			ctx := cmd.Context()
			p, running, err := e.pipeline()
			if err != nil {
				return err
			}
			db, err := e.database(ctx, p)
			if err != nil {
				return err
			}
			defer db.Close()
			r := &reader{env: e, p: p, db: db, running: running, asJSON: asJSON}
			defer r.close()
			if !watch {
				return r.show(ctx, "")
			}
			if every < 200*time.Millisecond {
				every = 200 * time.Millisecond
			}
			prefix := ""
			if e.draws(e.Stdout) && !asJSON {
				prefix = "\x1b[H\x1b[2J"
			}
			for ctx.Err() == nil {
				if err := r.show(ctx, prefix); err != nil && ctx.Err() == nil {
					return err
				}
				_ = clock.Real().Sleep(ctx, every)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the status for programs; with --watch one object a look")
	c.Flags().BoolVarP(&watch, "watch", "w", false, "look again and again, until Ctrl-C")
	c.Flags().DurationVar(&every, "every", 2*time.Second, "time between two looks of --watch")
	return c
}

// reader looks at a pipeline from outside.
type reader struct {
	env     *env
	p       *spec.Pipeline
	db      *pgxpool.Pool
	running *embedded.Running
	asJSON  bool
	kafka   *kadm.Client
}

func (r *reader) show(ctx context.Context, prefix string) error {
	var kafkaErr error
	if r.kafka == nil {
		client, err := r.env.brokers(ctx, r.p)
		if err != nil {
			kafkaErr = err
		} else {
			r.kafka = kadm.NewClient(client)
		}
	}
	now := time.Now()
	if r.running != nil {
		if fresh, err := embedded.FindRunning(r.env.state); err == nil && fresh != nil {
			now = fresh.Data.Now()
		}
	}
	s, err := status.Read(ctx, r.p, r.db, r.kafka, now)
	if err != nil {
		if pg.Is(err, pg.MissingObject) {
			return store.ErrNotApplied
		}
		return err
	}
	if kafkaErr != nil {
		s.KafkaError = kafkaErr.Error()
	}
	var text bytes.Buffer
	text.WriteString(prefix)
	to := terminal.Draw(r.env.Stdout)
	if r.asJSON {
		to = r.env.Stdout
		err = writeJSON(&text, s)
	} else {
		err = s.Print(&text, status.Look{Color: r.env.color(r.env.Stdout), Width: int(r.env.width(r.env.Stdout))})
	}
	_, werr := io.Copy(to, &text)
	return errors.Join(err, werr)
}

func (r *reader) close() {
	if r.kafka != nil {
		r.kafka.Close()
	}
}
