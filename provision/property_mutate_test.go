package provision_test

import (
	"regexp"
	"slices"
	"strings"

	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// mutate changes a pipeline in up to n ways, and makes it valid again.
func (m *maker) mutate(p *spec.Pipeline, n int) {
	p.Removed = nil // deleted by now
	for range 1 + m.IntN(n) {
		pick(m,
			m.mutateTopics, m.mutateTopics,
			m.mutateTables, m.mutateTables, m.mutateTables, m.mutateTables, m.mutateTables,
			m.mutateViews, m.mutateViews, m.mutateRoles, m.mutateRoles, m.mutateAggregates,
			m.mutateFolders, m.mutateSources, m.mutateDashboards, m.mutateAlerts,
		)(p)
	}
	repair(p)
}

// drop takes an object out of its list; the block alone goes, or the object, too.
func drop[T any](m *maker, p *spec.Pipeline, list []*T, kind string, name func(*T) string) []*T {
	if len(list) == 0 {
		return list
	}
	i := m.IntN(len(list))
	if m.one(2) {
		p.Removed = append(p.Removed, &spec.Removed{Kind: kind, Name: name(list[i])})
	}
	return slices.Delete(slices.Clone(list), i, i+1)
}

func (m *maker) mutateTopics(p *spec.Pipeline) {
	switch n := m.IntN(8); {
	case n == 0 || len(p.Topics) == 0:
		p.Topics = append(p.Topics, m.topic())
	case n == 1:
		p.Topics = drop(m, p, p.Topics, "topic", func(t *spec.Topic) string { return t.Name })
	case n == 2:
		t := pick(m, p.Topics...)
		t.Partitions = max(1, t.Partitions+int32(pick(m, -1, 1, 2)))
	case n == 3:
		t := pick(m, p.Topics...)
		t.Config = map[string]string{}
	default:
		key, value := m.setting()
		pick(m, p.Topics...).Config[key] = value
	}
}

func (m *maker) mutateTables(p *spec.Pipeline) {
	if len(p.Tables) == 0 || m.one(12) {
		p.Tables = append(p.Tables, m.table())
		return
	}
	if m.one(12) {
		p.Tables = drop(m, p, p.Tables, "table", func(t *spec.Table) string { return t.Name })
		return
	}
	t := pick(m, p.Tables...)
	c := pick(m, t.Columns...)
	switch m.IntN(13) {
	case 0:
		t.Columns = append(t.Columns, m.column(t))
	case 1:
		if c.Name != "k" && c.Name != "t" {
			t.Columns = slices.DeleteFunc(t.Columns, func(o *spec.Column) bool { return o == c })
		}
	case 2:
		m.rename(t, c)
	case 3:
		c.Type = m.columnType()
		m.value(t, c)
	case 4:
		c.Null = !c.Null
	case 5, 6:
		m.value(t, c)
	case 7:
		c.Description = m.words()
	case 8:
		t.Description = m.words()
	case 9:
		t.PrimaryKey = m.key(t)
	case 10:
		switch n := m.IntN(4); {
		case n < 2 || len(t.Indexes) == 0:
			t.Indexes = append(t.Indexes, m.index(t))
		case n == 2:
			t.Indexes = t.Indexes[1:]
		default:
			x := pick(m, t.Indexes...)
			if x.Columns = m.index(t).Columns; m.one(2) {
				x.Name = m.name("idx")
			}
		}
	case 11:
		switch {
		case t.Hypertable == nil || m.one(2):
			t.Hypertable = m.hypertable()
		case m.one(4):
			t.Hypertable = nil
		}
	case 12:
		m.Shuffle(len(t.Columns), func(i, j int) { t.Columns[i], t.Columns[j] = t.Columns[j], t.Columns[i] })
	}
}

// rename gives a column another name, and has the table follow.
func (m *maker) rename(t *spec.Table, c *spec.Column) {
	old, name := c.Name, m.name("c")
	if old == "k" || old == "t" {
		return // the queries of this test name them
	}
	c.Name, c.Was = name, old
	for _, o := range t.Columns {
		o.Generated = strings.ReplaceAll(o.Generated, `"`+old+`"`, `"`+name+`"`)
	}
	for _, list := range append([][]string{t.PrimaryKey}, indexed(t)...) {
		for i, n := range list {
			if n == old {
				list[i] = name
			}
		}
	}
}

func indexed(t *spec.Table) (out [][]string) {
	for _, x := range t.Indexes {
		out = append(out, x.Columns)
	}
	return out
}

func (m *maker) mutateViews(p *spec.Pipeline) {
	switch n := m.IntN(8); {
	case n == 0 || len(p.Views) == 0:
		p.Views = append(p.Views, m.view(p))
	case n == 1:
		p.Views = drop(m, p, p.Views, "view", func(v *spec.View) string { return v.Name })
	case n == 2:
		pick(m, p.Views...).Description = m.words()
	case n == 3:
		m.chain(p)
	case n == 4 && len(p.Views) > 1: // two change roles; each still reads earlier ones only
		i := m.IntN(len(p.Views) - 1)
		a, b := p.Views[i], p.Views[i+1]
		b.Query = regexp.MustCompile(`\b`+a.Name+`\b`).ReplaceAllLiteralString(b.Query, b.Name)
		a.Name, b.Name = b.Name, a.Name
	case n == 5:
		m.retypeUnderViews(p)
	default:
		i := m.IntN(len(p.Views))
		p.Views[i].Query = m.query(p, i)
	}
}

// chain adds views of which each reads the one before, and the first a table.
func (m *maker) chain(p *spec.Pipeline) {
	if len(p.Tables) == 0 {
		return
	}
	t := pick(m, p.Tables...)
	from, columns := t.Name, []string{}
	for _, c := range t.Columns {
		columns = append(columns, `"`+c.Name+`"`)
	}
	for range 2 + m.IntN(2) {
		columns = shuffled(m, columns)[:1+m.IntN(len(columns))]
		v := &spec.View{Name: m.name("chain"), Query: "SELECT " + strings.Join(columns, ", ") + " FROM " + from}
		p.Views, from = append(p.Views, v), v.Name
	}
}

// retypeUnderViews gives columns that views read another type, or takes them out of a view's list.
func (m *maker) retypeUnderViews(p *spec.Pipeline) {
	for _, t := range p.Tables {
		for _, c := range t.Columns {
			if wider := map[spec.ColumnType]spec.ColumnType{spec.Integer: spec.Bigint, spec.Bigint: spec.Numeric, spec.Boolean: spec.Text}[c.Type]; wider != "" && c.Generated == "" && m.one(2) {
				c.Type, c.Default = wider, ""
			}
		}
	}
}

func (m *maker) mutateAggregates(p *spec.Pipeline) {
	if !m.timescale {
		return
	}
	switch n := m.IntN(5); {
	case n == 0 || len(p.Aggregates) == 0:
		if a := m.aggregate(p); a != nil {
			p.Aggregates = append(p.Aggregates, a)
		}
	case n == 1:
		p.Aggregates = drop(m, p, p.Aggregates, "aggregate", func(a *spec.Aggregate) string { return a.Name })
	case n == 2:
		a := pick(m, p.Aggregates...)
		a.Query = m.buckets(a.From)
	default:
		a := pick(m, p.Aggregates...)
		if b := m.aggregate(p); b != nil {
			a.Description, a.RealTime, a.Refresh, a.Retention = b.Description, b.RealTime, b.Refresh, b.Retention
		}
	}
}

func (m *maker) mutateRoles(p *spec.Pipeline) {
	switch n := m.IntN(6); {
	case n == 0 || len(p.Roles) == 0:
		p.Roles = append(p.Roles, m.role(p))
	case n == 1:
		p.Roles = drop(m, p, p.Roles, "role", func(r *spec.Role) string { return r.Name })
	case n == 2:
		if r := pick(m, p.Roles...); len(r.Grants) > 0 {
			r.Grants = r.Grants[1:]
		}
	case n == 3:
		r := pick(m, p.Roles...)
		if g := m.grant(p); g != nil {
			r.Grants = append(r.Grants, g)
		}
	default:
		r, other := pick(m, p.Roles...), m.role(p)
		r.Login, r.Password, r.ReadOnly, r.Timeout = other.Login, other.Password, other.ReadOnly, other.Timeout
	}
}

func (m *maker) mutateFolders(p *spec.Pipeline) {
	switch n := m.IntN(4); {
	case n == 0 || len(p.Folders) == 0:
		p.Folders = append(p.Folders, m.folder(p))
	case n == 1:
		p.Folders = drop(m, p, p.Folders, "folder", func(f *spec.Folder) string { return f.Name })
	case n == 2:
		i := m.IntN(len(p.Folders))
		if p.Folders[i].Parent = nil; i > 0 && m.one(2) {
			p.Folders[i].Parent = p.Folders[m.IntN(i)]
		}
	default:
		pick(m, p.Folders...).Title = m.title()
	}
}

func (m *maker) mutateSources(p *spec.Pipeline) {
	if len(p.DataSources) == 0 || m.one(6) {
		p.DataSources = append(p.DataSources, m.dataSource())
		return
	}
	if m.one(6) {
		p.DataSources = drop(m, p, p.DataSources, "datasource", func(d *spec.DataSource) string { return d.Name })
		return
	}
	d, other := pick(m, p.DataSources...), m.dataSource()
	other.Name, other.UID = d.Name, d.UID
	if m.one(2) {
		other.Title = d.Title
	}
	*d = *other
}

func (m *maker) mutateDashboards(p *spec.Pipeline) {
	if len(p.DataSources) == 0 {
		return
	}
	switch n := m.IntN(4); {
	case n == 0 || len(p.Dashboards) == 0:
		p.Dashboards = append(p.Dashboards, m.dashboard(p))
	case n == 1:
		p.Dashboards = drop(m, p, p.Dashboards, "dashboard", func(d *spec.Dashboard) string { return d.Name })
	default:
		d, other := pick(m, p.Dashboards...), m.dashboard(p)
		if d.Folder, d.DataSource = other.Folder, other.DataSource; m.one(2) {
			d.JSON = other.JSON
		}
	}
}

func (m *maker) mutateAlerts(p *spec.Pipeline) {
	if len(p.DataSources) == 0 || len(p.Folders) == 0 {
		return
	}
	switch n := m.IntN(4); {
	case n == 0 || len(p.Alerts) == 0:
		p.Alerts = append(p.Alerts, m.alert(p))
	case n == 1:
		p.Alerts = drop(m, p, p.Alerts, "alert", func(a *spec.Alert) string { return a.Name })
	default:
		a, other := pick(m, p.Alerts...), m.alert(p)
		other.Name = a.Name
		*a = *other
	}
}

// repair takes out what names something that is gone, and what no pipeline may say.
func repair(p *spec.Pipeline) {
	for _, t := range p.Tables {
		repairTable(t)
	}
	tables := func(t *spec.Table) bool { return slices.Contains(p.Tables, t) }
	p.Aggregates = slices.DeleteFunc(p.Aggregates, func(a *spec.Aggregate) bool { return !tables(a.From) || a.From.Hypertable == nil })
	for _, r := range p.Roles {
		for _, g := range r.Grants {
			g.On = slices.DeleteFunc(g.On, func(name string) bool { return name != "cryptoviz" && !slices.Contains(relations(p), name) })
		}
		r.Grants = slices.DeleteFunc(r.Grants, func(g *spec.Grant) bool { return len(g.On) == 0 })
	}
	// What a query names cannot go; that is found out by apply alone.
	p.Removed = slices.DeleteFunc(p.Removed, func(r *spec.Removed) bool {
		return slices.ContainsFunc(p.Views, func(v *spec.View) bool { return strings.Contains(v.Query, r.Name) }) ||
			slices.ContainsFunc(p.Aggregates, func(a *spec.Aggregate) bool { return strings.Contains(a.Query, r.Name) })
	})
	folders := func(f *spec.Folder) bool { return slices.Contains(p.Folders, f) }
	for _, f := range p.Folders {
		if !folders(f.Parent) {
			f.Parent = nil
		}
	}
	for _, d := range p.Dashboards {
		if !folders(d.Folder) {
			d.Folder = nil
		}
		if !slices.Contains(p.DataSources, d.DataSource) {
			d.DataSource = nil
		}
	}
	defaults := 0
	for _, d := range p.DataSources {
		if d.Default {
			defaults++
		}
		d.Default = d.Default && defaults == 1
	}
	p.Alerts = slices.DeleteFunc(p.Alerts, func(a *spec.Alert) bool { return !folders(a.Folder) || !slices.Contains(p.DataSources, a.DataSource) })
}

func repairTable(t *spec.Table) {
	t.PrimaryKey = slices.DeleteFunc(t.PrimaryKey, func(name string) bool {
		c := t.Column(name)
		return c == nil || name != "k" && name != "t" && (c.Null || c.Generated != "")
	})
	for _, name := range []string{"k", "t"} { // the key stays one
		c := t.Column(name)
		if c.Null, c.Generated = false, ""; c.Default == "NULL" {
			c.Default = ""
		}
		if name == "t" {
			c.Type, c.Default = spec.Timestamptz, ""
		}
	}
	for _, c := range t.Columns {
		if c.Generated != "" && !slices.ContainsFunc(t.Columns, func(o *spec.Column) bool {
			return o != c && o.Generated == "" && strings.Contains(c.Generated, `"`+o.Name+`"`) && slices.ContainsFunc(computed[c.Type][o.Type], func(text string) bool { return over(text, o.Name) == c.Generated })
		}) {
			c.Generated = ""
		}
		if c.Generated != "" {
			c.Default, c.Null = "", true
		}
		if c.Default == "NULL" {
			c.Null = true
		}
	}
	t.Indexes = slices.DeleteFunc(t.Indexes, func(x *spec.Index) bool {
		return slices.ContainsFunc(x.Columns, func(name string) bool { return t.Column(name) == nil })
	})
	h := t.Hypertable
	if h == nil || h.Columnstore == nil {
		return
	}
	if h.Retention > 0 && h.Columnstore.After >= h.Retention {
		h.Columnstore = nil
	}
}
