package load

import (
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// folded refuses times in SQL that PostgreSQL reads once, when what is a view, an aggregate, a default or a rollup:
// they would stand still, and each plan would find another time. at is the file that the SQL comes from, if it is one
// of its own.
func (l *loader) folded(b *block, attr, sql, at, typ, what string, timeColumn func(string) bool) {
	if !b.good[attr] || l.full() {
		return
	}
	for _, f := range pg.FoldedTimes(sql, typ, timeColumn) {
		text := "The time"
		if !b.secret[attr] {
			text = sql[f.Start:f.End]
		}
		detail := fmt.Sprintf("PostgreSQL reads %s once, %s, and keeps that time from then on. Write %s.", text, what,
			f.Instead)
		if attr == "generated" {
			detail = fmt.Sprintf("PostgreSQL reads %s once, %s, and keeps that time from then on. A generated "+
				"column cannot follow the time: use a default, %s.", text, what, f.Instead)
		}
		l.fail(l.within(b, attr, sql, at, f), "A time that stands still", "%s", detail)
	}
}

// within is the place of a part of an attribute's text: in the file that it comes from, or in the attribute when that
// says it word for word.
func (l *loader) within(b *block, attr, sql, at string, f pg.Folded) hcl.Range {
	r := b.rangeOf(attr)
	src, offset := []byte(nil), 0
	if file := l.files[r.Filename]; file != nil && r.End.Byte <= len(file.Bytes) {
		src, offset = file.Bytes[:r.End.Byte], r.Start.Byte
	}
	if at != "" && !b.secret[attr] {
		if own, err := l.readFile(at); err == nil {
			r.Filename, src, offset = at, own, 0
			if l.files[at] == nil {
				l.files[at] = &hcl.File{Bytes: own}
			}
		}
	}
	part := sql[f.Start:f.End]
	n := strings.Count(sql[:f.Start], part) // the same may be there before
	for i := 0; src != nil && i <= n; i++ {
		next := strings.Index(string(src[offset:]), part)
		if next < 0 {
			return b.rangeOf(attr)
		}
		if offset += next; i < n {
			offset += len(part)
		}
	}
	if src == nil {
		return r
	}
	r.Start, r.End = position(src, offset), position(src, offset+len(part))
	return r
}

// position is the line and column of a byte.
func position(src []byte, offset int) hcl.Pos {
	before := string(src[:offset])
	line := strings.LastIndex(before, "\n") + 1
	return hcl.Pos{Line: 1 + strings.Count(before, "\n"), Column: 1 + len([]rune(before[line:])), Byte: offset}
}

// timeColumn tells whether columns of a name hold times in all declared tables that have one.
func (l *loader) timeColumn(name string) bool {
	found := false
	for _, t := range l.p.Tables {
		if c := t.Column(name); c != nil {
			if c.Type != spec.Timestamptz {
				return false
			}
			found = true
		}
	}
	return found
}
