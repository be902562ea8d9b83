//go:build !linux

package connect

import "syscall"

// userTimeout does nothing: keepalive must do.
func userTimeout(string, string, syscall.RawConn) error { return nil }
