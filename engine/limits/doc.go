// Package limits bounds what files may cost: Prescan before they are parsed, Meter while expressions are evaluated.
package limits
