package role

import (
	"strings"
	"testing"
)

func TestScramVerifier(t *testing.T) {
	t.Parallel()
	// RFC 7677, section 3: the keys of user "pencil" with this salt.
	v, err := scramVerifier("pencil", []byte("[m\x99h\x9d\x125\x8e\xec\xa0K\x14\x126\xfa\x81"), 4096)
	if err != nil || v != "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=" {
		t.Errorf("%s, %v", v, err)
	}
	for _, c := range []struct {
		verifier, password string
		want               bool
	}{{v, "pencil", true}, {v, "pencils", false}, {"md5abc", "pencil", false}, {"SCRAM-SHA-256$x", "pencil", false}, {"", "", false}, {strings.Replace(v, "4096", "99999999", 1), "pencil", false}} {
		if have := verifies(c.verifier, c.password); have != c.want {
			t.Errorf("verifies(%q, %q) = %t", c.verifier, c.password, have)
		}
	}
}
