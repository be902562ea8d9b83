package local

import (
	"os/exec"
	"runtime"
	"syscall"
)

func attributes(a *account) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGINT}
	if a != nil {
		attr.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)} //nolint:gosec // account numbers
	}
	return attr
}

// startBound starts a child that is told to stop when we die. The kernel ties that to the thread that started it, so the
// thread is kept until the child ends; done is called then.
func startBound(cmd *exec.Cmd, done func(error)) error {
	started := make(chan error, 1)
	go func() { // ends with the child
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			done(cmd.Wait())
		}
	}()
	return <-started
}
