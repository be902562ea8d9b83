//go:build !linux

package embedded

import (
	"errors"
	"os/exec"
	"strconv"
	"strings"
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

// serves tells whether a process is the server of a data directory: its command is "postgres -D data ...".
func serves(pid int, data string) bool {
	out, err := exec.Command("ps", "-ww", "-o", "args=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && strings.Contains(string(out), "postgres -D "+data+" -c ")
}

// lives tells whether a process runs.
func lives(pid int) bool { return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }
