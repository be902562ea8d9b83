package fetch

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	"github.com/cryptoviz/cryptoviz/engine/decode"
)

// reported is a failure that the source itself reports.
func (s redactor) reported(e *decode.SourceError) *Error {
	return &Error{Reason: strings.TrimSpace("the source says: " + s.quote(e.Message)), Temporary: true}
}

// noise is what errors say of the program, not of the source.
var noise = strings.NewReplacer("net/http: ", "", "HTTP/1.x transport connection broken: ", "")

// describe says in a few words why no answer came.
func (s redactor) describe(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		e.Reason = s.line(e.Reason)
		return e
	}
	if e, ok := errors.AsType[*url.Error](err); ok { // its text holds the whole URL
		err = e.Err
	}
	where := "the source"
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Addr != nil {
		where = op.Addr.String()
	}
	dns, isDNS := errors.AsType[*net.DNSError](err)
	certificate, isCertificate := errors.AsType[*tls.CertificateVerificationError](err)
	slow, isNet := errors.AsType[net.Error](err)
	var reason string
	switch {
	case isDNS && dns.IsNotFound:
		reason = "the name " + s.quote(dns.Name) + " is not known: no network, or a wrong host"
	case isDNS:
		reason = "the name " + s.quote(dns.Name) +
			" cannot be looked up: no network, or its name server does not answer"
	case errors.Is(err, context.Canceled):
		reason = "interrupted"
	case errors.Is(err, context.DeadlineExceeded):
		reason = "no whole answer in time"
	case errors.Is(err, syscall.ECONNREFUSED):
		reason = where + " refuses the connection"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETDOWN):
		reason = where + " cannot be reached: no network, or no way to it"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		reason = "the source broke the connection off"
	case isCertificate:
		reason = "the source's certificate cannot be trusted: " +
			s.quote(strings.TrimPrefix(certificate.Err.Error(), "x509: "))
	case isNet && slow.Timeout():
		reason = where + " does not answer"
	case strings.HasPrefix(err.Error(), "failed to parse Location header"): // it repeats the header
		reason = "redirected to what is no URL"
	default:
		reason = s.quote(noise.Replace(err.Error()))
	}
	return &Error{Reason: reason, Temporary: true}
}

// status names an HTTP status that is no success.
func status(code int) string {
	return strings.TrimSpace(fmt.Sprintf("HTTP %d %s", code, http.StatusText(code)))
}
