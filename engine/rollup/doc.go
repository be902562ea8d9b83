// Package rollup builds the history: when a day is over, its raw rows become hours and go, in one transaction.
package rollup
