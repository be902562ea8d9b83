package testkit

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Signal sends a signal to the server and to each process that it has started: SIGSTOP and SIGCONT are meant for all of
// them. It needs Linux.
func (s *PostgresServer) Signal(sig syscall.Signal) error {
	pid, err := s.postmaster()
	if err != nil {
		return err
	}
	errs := []error{syscall.Kill(pid, sig)} // the first, so that it starts no other
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	errs = append(errs, err)
	for child := range strings.FieldsSeq(string(children)) {
		if n, err := strconv.Atoi(child); err == nil {
			if err := syscall.Kill(n, sig); !errors.Is(err, syscall.ESRCH) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}
