// Package produce puts raw records on their source's topic.
package produce
