package fetch

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/cryptoviz/cryptoviz/engine/expr"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

// Budgets are the rate limiters of a process: sources that name the same one share it.
type Budgets struct {
	mu     sync.Mutex
	byName map[string]*rateLimiter
	keeper keeper
}

// NewBudgets returns an empty set. pauses, unless nil, keeps what sources ask to wait for.
func NewBudgets(pauses Pauses, log *slog.Logger) *Budgets {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Budgets{byName: map[string]*rateLimiter{}, keeper: keeper{
		pauses: pauses, log: log,
		asking: make(chan struct{}, 1), unkept: map[*rateLimiter]bool{},
	}}
}

// ofSource returns the limiter of a source that names no budget.
func (b *Budgets) ofSource(name string) *rateLimiter { return b.named("source " + name) }

func (b *Budgets) named(name string) *rateLimiter {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.byName[name]
	if a == nil {
		a = &rateLimiter{name: name}
		b.byName[name] = a
	}
	return a
}

// get returns a budget's limiter; where two sources declare it differently the smaller rate counts. At a fast clock the
// stretch of time is as much shorter.
func (b *Budgets) get(s *spec.Budget, speed float64) *rateLimiter {
	a := b.named("budget " + s.Name)
	a.declare(s.Limit, s.Per, speed)
	return a
}

// rateLimiter is when requests may be sent: at most limit cost units in any stretch of time as long as per, and none
// before the time that the server asked to wait for. Times are the machine's: servers know no other.
type rateLimiter struct {
	name string // "budget NAME" or "source NAME"
	mu   sync.Mutex

	limit    int // 0: no limit
	declared time.Duration
	per      time.Duration // declared, at the clock's speed
	spent    []*reservation
	until    time.Time
	reason   string // of until
}

// reservation counts from its sending until per after its end: by then the server has counted it, whatever the network
// does.
type reservation struct {
	cost int
	end  time.Time // zero: under way
}

func (a *rateLimiter) declare(limit int, per time.Duration, speed float64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	rate := func(limit int, per time.Duration) float64 { return float64(limit) / per.Seconds() }
	if a.limit == 0 || rate(limit, per) < rate(a.limit, a.declared) || (rate(limit, per) == rate(a.limit, a.declared) &&
		limit < a.limit) {
		a.limit, a.declared, a.per = limit, per, time.Duration(float64(per)/speed)
	}
}

// take waits until a request of that cost is allowed, or says that it will not be before ctx ends. The caller ends the
// reservation when the reply is there.
func (a *rateLimiter) take(ctx context.Context, cost int) (*reservation, error) {
	for {
		s, at, why := a.tryTake(time.Now(), cost)
		if s != nil {
			return s, nil
		}
		if at.IsZero() || !waitUntil(ctx, at) {
			return nil, &Error{Reason: why, NotTried: true}
		}
	}
}

// tryTake takes the cost, or tells when to try again and why. Never is the zero time.
func (a *rateLimiter) tryTake(now time.Time, cost int) (s *reservation, at time.Time, why string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.until.After(now) {
		return nil, a.until, "the source asked to wait until " + a.until.UTC().Format("2006-01-02 15:04:05") +
			" UTC (" + a.reason + ")"
	}
	if a.limit == 0 {
		return &reservation{}, now, ""
	}
	budget := fmt.Sprintf("the request %s (%d per %s)", a.name, a.limit, units.FormatDuration(a.declared))
	if cost > a.limit {
		return nil, time.Time{},
			fmt.Sprintf("%s is smaller than one request, which costs %d: give every source of that budget "+
				"the same limit", budget, cost)
	}
	used := a.used(now)
	if used+cost <= a.limit {
		s = &reservation{cost: cost}
		a.spent = append(a.spent, s)
		return s, now, ""
	}
	at = now.Add(a.per)
	for _, s := range a.spent { // the first that is over comes first
		if used -= s.cost; used+cost <= a.limit {
			at = a.over(s, now)
			break
		}
	}
	return nil, at, budget + " is spent"
}

// over is when a reservation no longer counts.
func (a *rateLimiter) over(s *reservation, now time.Time) time.Time {
	if s.end.IsZero() {
		return now.Add(a.per)
	}
	return s.end.Add(a.per)
}

// used forgets what is over, sorts the rest and returns its cost. The caller holds mu.
func (a *rateLimiter) used(now time.Time) (sum int) {
	a.spent = slices.DeleteFunc(a.spent, func(s *reservation) bool { return !a.over(s, now).After(now) })
	slices.SortFunc(a.spent, func(x, y *reservation) int { return a.over(x, now).Compare(a.over(y, now)) })
	for _, s := range a.spent {
		sum += s.cost
	}
	return sum
}

func (a *rateLimiter) done(s *reservation) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s.end = time.Now()
}

// learn takes over what the server says was used in its stretch of time, where that is more than is known here: others
// at this address use it too.
func (a *rateLimiter) learn(said float64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if more := min(said, float64(a.limit)) - float64(a.used(now)); more > 0 { // false for NaN
		a.spent = append(a.spent, &reservation{cost: int(math.Ceil(more)), end: now})
	}
}

// waitUntil waits, unless ctx ends before.
func waitUntil(ctx context.Context, at time.Time) bool {
	end, ok := ctx.Deadline()
	return (!ok || !at.After(end)) && wait(ctx, time.Until(at))
}

// wait waits; false: ctx ended meanwhile.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// learn reads what the server says was used.
func (p *Poll) learn(h http.Header) {
	budget := p.src.Definition.Poll.Budget
	if budget == nil || budget.Used == nil {
		return
	}
	names := map[string]cty.Value{}
	for _, tr := range budget.Used.Variables() {
		if name, ok := headerName(tr); ok {
			names[name] = cty.NullVal(cty.String)
			if v := h.Get(name); v != "" {
				names[name] = cty.StringVal(v)
			}
		}
	}
	v, diags := budget.Used.Value(&hcl.EvalContext{Variables: map[string]cty.Value{
		"header": cty.ObjectVal(names),
		"param":  p.src.Definition.Params,
	}, Functions: expr.RowFunctions()})
	if diags.HasErrors() || v.IsNull() || !v.IsKnown() {
		return
	}
	switch v.Type() {
	case cty.String:
		if used, err := strconv.ParseFloat(v.AsString(), 64); err == nil {
			p.limiter.learn(used)
		}
	case cty.Number:
		used, _ := v.AsBigFloat().Float64()
		p.limiter.learn(used)
	}
}

func headerName(tr hcl.Traversal) (string, bool) {
	if tr.RootName() != "header" || len(tr) < 2 {
		return "", false
	}
	switch step := tr[1].(type) {
	case hcl.TraverseAttr:
		return step.Name, true
	case hcl.TraverseIndex:
		if step.Key.Type() == cty.String {
			return step.Key.AsString(), true
		}
	}
	return "", false
}
