package simulate

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/decode"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// player is what one source gets to hear.
type player struct {
	src       *spec.Source
	reply     *template   // a poll's reply
	acks      []*template // a stream's frames that come once, after the first subscription
	rounds    []*template // … and those that come again and again
	recording *recording  // instead: recorded traffic
}

// Fixtures are the files, in the pipeline's folder, the first of which that is there plays a source. Each source needs
// one.
func Fixtures(src *spec.Source) []string {
	stem := strings.TrimSuffix(src.Definition.File, path.Ext(src.Definition.File))
	names := []string{stem + ".reply.json", stem + ".reply.html"}
	if src.Definition.Stream != nil {
		names = []string{stem + ".frames.ndjson"}
	} else if src.Definition.Decode.Format == "html" {
		slices.Reverse(names)
	}
	return names
}

// fixturePlayer reads the fixtures beside a definition; nil: there are none.
func fixturePlayer(fsys fs.FS, src *spec.Source, seed uint64, log *slog.Logger) (*player, error) {
	for _, name := range Fixtures(src) {
		body, err := readFile(fsys, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read fixture %s of source %s: %w", name, src.Name, err)
		}
		m, err := newMaker(src, seed, true, func(key string, err error) {
			log.Warn("fixture record is no row", "source", src.Name, "file", name, "key", key, "reason", err.Error())
		})
		if err != nil {
			return nil, err
		}
		if body, err = m.dec.Text("", body); err != nil {
			return nil, fmt.Errorf("read fixture %s of source %s: %w", name, src.Name, err)
		}
		p := &player{src: src}
		if src.Definition.Stream != nil {
			err = p.frames(m, body, log)
		} else {
			err = p.poll(m, body, log)
		}
		if err != nil {
			return nil, fmt.Errorf("read fixture %s of source %s: %w", name, src.Name, err)
		}
		return p, nil
	}
	return nil, nil
}

// maxFile bounds a fixture or recording: it is held in memory.
const maxFile = 256 << 20

func readFile(fsys fs.FS, name string) ([]byte, error) {
	info, err := fs.Stat(fsys, name)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("it has %d MiB; at most %d MiB are played", info.Size()>>20, maxFile>>20)
	}
	return fs.ReadFile(fsys, name)
}

// poll takes a reply apart and puts the markets together that the source asks for.
func (p *player) poll(m *maker, body []byte, log *slog.Logger) error {
	pieces, err := m.dec.Records(body)
	if err != nil {
		return err
	}
	keys := keysOf(pieces)
	wanted := requestedMarkets(p.src.Definition, m.market, keys)
	if len(wanted) > 0 && !slices.Equal(wanted, keys) && p.src.Definition.Decode.Format == "json" {
		head, parts, tail, ok := chunks(body, pieces, p.src.Definition.Decode.Keyed)
		if !ok {
			log.Warn("fixture plays its own markets", "source", p.src.Name, "reason",
				"its reply is not a list of records", "asked", wanted, "played", keys)
		} else {
			var out [][]byte
			for _, w := range wanted {
				i := slices.Index(keys, w)
				if i >= 0 {
					out = append(out, parts[i])
					continue
				}
				var scale float64
				i, scale = templateOf(m.market, w, keys)
				part := rename(parts[i], keys[i], w)
				made, err := m.dec.Records(join(head, [][]byte{part}, tail))
				if err != nil || len(made) != 1 || made[0].Key != w {
					log.Warn("market cannot be simulated", "source", p.src.Name, "market", w, "reason",
						"the fixture's record cannot be renamed")
					continue
				}
				out, m.scales[w] = append(out, part), scale
			}
			if len(out) > 0 {
				body = join(head, out, tail)
			}
		}
	}
	p.reply, err = m.compile(body, time.Time{})
	return err
}

func keysOf(pieces []decode.Piece) []string {
	out := make([]string, len(pieces))
	for i, p := range pieces {
		out[i] = p.Key
	}
	return out
}

// frame is one frame of a fixture with the markets in it.
type frame struct {
	body []byte
	keys []string
}

// frames sorts a stream's frames: what holds records, or tells a time, comes every round; the rest comes once.
func (p *player) frames(m *maker, body []byte, log *slog.Logger) error {
	var all []frame
	var keys []string
	for i, line := range bytes.Split(body, []byte("\n")) {
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		pieces, err := m.dec.Records(line)
		if err != nil {
			return fmt.Errorf("line %d: %w", i+1, err)
		}
		f := frame{line, keysOf(pieces)}
		all, keys = append(all, f), append(keys, f.keys...)
	}
	if len(keys) == 0 {
		return errors.New("no frame holds a record")
	}
	if wanted := requestedMarkets(p.src.Definition, m.market, keys); len(wanted) > 0 {
		made := p.missing(m, body, keys, wanted, log)
		isWanted := func(k string) bool { return slices.Contains(wanted, k) }
		// else the fixture's own markets are better than silence
		if len(made) > 0 || slices.ContainsFunc(keys, isWanted) {
			all = slices.DeleteFunc(all, func(f frame) bool {
				return len(f.keys) > 0 && !slices.ContainsFunc(f.keys, isWanted)
			})
			all = append(all, made...)
		}
	}
	for _, f := range all {
		t, err := m.compile(f.body, time.Time{})
		if err != nil {
			return err
		}
		if len(f.keys) > 0 || t.times > 0 {
			p.rounds = append(p.rounds, t)
		} else {
			p.acks = append(p.acks, t)
		}
	}
	return nil
}

// missing makes the frames of markets that the fixture lacks, from frames that hold one record.
func (p *player) missing(m *maker, body []byte, keys, wanted []string, log *slog.Logger) []frame {
	var singles []string
	models := map[string][]byte{}
	for line := range bytes.Lines(body) {
		line = bytes.TrimSpace(line)
		if pieces, err := m.dec.Records(line); err == nil && len(pieces) == 1 && models[pieces[0].Key] == nil {
			singles, models[pieces[0].Key] = append(singles, pieces[0].Key), line
		}
	}
	var out []frame
	for _, w := range wanted {
		if slices.Contains(keys, w) {
			continue
		}
		reason := "no frame of the fixture holds just one record"
		if len(singles) > 0 {
			i, scale := templateOf(m.market, w, singles)
			made := rename(models[singles[i]], singles[i], w)
			if pieces, err := m.dec.Records(made); err == nil && len(pieces) == 1 && pieces[0].Key == w {
				out, m.scales[w] = append(out, frame{made, []string{w}}), scale
				continue
			}
			reason = "the fixture's record cannot be renamed"
		}
		log.Warn("market cannot be simulated", "source", p.src.Name, "market", w, "reason", reason)
	}
	return out
}

// period is how often a stream's frames come: each second, or three times a slot where a fast clock makes slots
// shorter.
func (p *player) period(speed float64) time.Duration {
	slot := time.Duration(float64(p.src.Interval) / speed)
	return min(time.Second, max(slot/3, 2*time.Millisecond))
}
