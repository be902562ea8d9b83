# syntax=docker/dockerfile:1

FROM --platform=$BUILDPLATFORM golang:1.26.8-alpine3.24 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG TARGETOS TARGETARCH VERSION=
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /out/cryptoviz .

# For the health check alone: a client that can ask /readyz.
FROM busybox:1.37.0-musl AS busybox

# No shell, no packages: the program, the authorities that it trusts, and the pipeline. All times are UTC: no time zones.
FROM scratch
COPY --from=busybox /bin/wget /wget
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/cryptoviz /cryptoviz
COPY pipeline.hcl /pipeline/
COPY sources /pipeline/sources
COPY sql /pipeline/sql
COPY dashboards /pipeline/dashboards
WORKDIR /pipeline
USER 65532:65532
ENTRYPOINT ["/cryptoviz"]
CMD ["run"]
