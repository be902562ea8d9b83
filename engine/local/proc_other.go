//go:build !linux

package local

import (
	"os/exec"
	"syscall"
)

func attributes(a *account) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if a != nil {
		attr.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)} //nolint:gosec // account numbers
	}
	return attr
}

// startBound starts a child. Without Linux's parent-death signal a server may outlive us; the next start adopts it.
func startBound(cmd *exec.Cmd, done func(error)) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { done(cmd.Wait()) }() // ends with the child
	return nil
}
