package fetch

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"golang.org/x/time/rate"

	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// Budgets are the request allowances of a process: sources that name the same one share it.
type Budgets struct {
	mu     sync.Mutex
	byName map[string]*rate.Limiter
}

// NewBudgets returns an empty set.
func NewBudgets() *Budgets { return &Budgets{byName: map[string]*rate.Limiter{}} }

// get returns a budget's limiter; where two sources declare it differently the smaller rate counts.
func (b *Budgets) get(s *spec.Budget, speed float64) *rate.Limiter {
	b.mu.Lock()
	defer b.mu.Unlock()
	limit := rate.Limit(float64(s.Limit) / s.Per.Seconds() * speed)
	l := b.byName[s.Name]
	if l == nil {
		l = rate.NewLimiter(limit, s.Limit)
		b.byName[s.Name] = l
	}
	if limit < l.Limit() {
		l.SetLimit(limit)
	}
	if s.Limit < l.Burst() {
		l.SetBurst(s.Limit)
	}
	return l
}

// spend waits until one request is allowed, or says that it will not be before ctx ends.
func (p *Poll) spend(ctx context.Context) error {
	if p.budget == nil {
		return nil
	}
	if err := p.budget.WaitN(ctx, p.src.Definition.Poll.Budget.Cost); err != nil {
		return &Error{Reason: "the request budget " + p.src.Definition.Poll.Budget.Name + " is spent", NotTried: true}
	}
	return nil
}

// learn takes over what the server says was used, where that is more than we know of.
func (p *Poll) learn(h http.Header) {
	if p.budget == nil || p.src.Definition.Poll.Budget.Used == nil {
		return
	}
	expr := p.src.Definition.Poll.Budget.Used
	names := map[string]cty.Value{}
	for _, tr := range expr.Variables() {
		if name, ok := headerName(tr); ok {
			names[name] = cty.NullVal(cty.String)
			if v := h.Get(name); v != "" {
				names[name] = cty.StringVal(v)
			}
		}
	}
	v, diags := expr.Value(&hcl.EvalContext{Variables: map[string]cty.Value{"header": cty.ObjectVal(names), "param": p.src.Definition.Params}, Functions: spec.RowFunctions()})
	if diags.HasErrors() || v.IsNull() || !v.IsKnown() {
		return
	}
	used := 0.0
	switch v.Type() {
	case cty.String:
		used, _ = strconv.ParseFloat(v.AsString(), 64)
	case cty.Number:
		used, _ = v.AsBigFloat().Float64()
	}
	left := float64(p.budget.Burst()) - used
	if excess := int(p.budget.Tokens() - left); excess > 0 {
		p.budget.ReserveN(time.Now(), min(excess, p.budget.Burst()))
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
