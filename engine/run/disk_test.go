package run

import "testing"

func TestDiskLimits(t *testing.T) {
	for total, want := range map[uint64][2]uint64{
		1 << 40:   {512 << 20, 768 << 20},
		2 << 30:   {512 << 20, 768 << 20},
		600 << 20: {150 << 20, 225 << 20}, // smaller than the usual limits: it must be able to go on
	} {
		if low, again := diskLimits(total); low != want[0] || again != want[1] {
			t.Errorf("%d bytes: %d and %d, want %v", total, low, again, want)
		}
	}
}

func TestTightestDisk(t *testing.T) {
	e := &Engine{opt: Options{Disks: []string{"/there/is/none", t.TempDir()}}}
	if dir, free, low, again := e.tightest(); dir != e.opt.Disks[1] || free == 0 || low == 0 || again <= low || e.free.Load() != free {
		t.Errorf("%s %d %d %d", dir, free, low, again)
	}
	e.opt.Disks = e.opt.Disks[:1]
	if dir, _, _, _ := e.tightest(); dir != "" {
		t.Error(dir)
	}
}
