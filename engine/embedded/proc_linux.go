package embedded

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
)

func attributes(a *account) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGINT}
	if a != nil {
		attr.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)} //nolint:gosec // account numbers
	}
	return attr
}

// startBound starts a child that is told to stop when we die. The kernel ties that to the thread that started it, so
// the thread is kept until the child ends; done is called then.
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

// serves tells whether a process is the server of a data directory: its command is "postgres -D data ...".
func serves(pid int, data string) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	args := strings.Split(string(text), "\x00")
	i := slices.Index(args, "-D") + 1
	if err != nil || i == 0 || i == len(args) || filepath.Base(args[0]) != "postgres" {
		return false
	}
	named, err := os.Stat(args[i])
	if err != nil {
		return false
	}
	info, err := os.Stat(data)
	return err == nil && os.SameFile(named, info)
}

// lives tells whether a process runs. One that ended and was not collected, as in a container without an init, does
// not.
func lives(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	state := string(text[strings.LastIndexByte(string(text), ')')+1:])
	return !strings.HasPrefix(state, " Z") && !strings.HasPrefix(state, " X")
}
