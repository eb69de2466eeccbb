# syntax=docker/dockerfile:1
#
# Both programs, static, in an image that has nothing else: no shell, no package manager, no root.
#
#   docker build -t loadline:local --build-arg VERSION=$(git describe --tags --always) .
#
# No CI of ours runs Docker. A test (deploy) reads this file, and the build's own commands were run by hand.

FROM golang:1.26.8-alpine AS build
# Each module is built as its users have it, not as the workspace has it.
ENV CGO_ENABLED=0 GOWORK=off GOFLAGS=-trimpath
WORKDIR /src
# Before the sources, so that a change to them does not download everything again.
COPY go.mod go.sum ./
COPY examples/conduit/go.mod examples/conduit/go.sum examples/conduit/
RUN go mod download && go -C examples/conduit mod download
COPY . .
ARG VERSION=""
RUN go build -ldflags "-s -w -X github.com/loadlinehq/loadline/internal/version.release=${VERSION}" -o /out/loadline ./cmd/loadline
RUN go -C examples/conduit build -ldflags "-s -w" -o /out/conduit ./cmd/conduit

# static has certificates and time zones, which scratch has not.
FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /out/loadline /out/conduit /usr/local/bin/
# By number, so that Kubernetes' runAsNonRoot can tell.
USER 65532:65532
EXPOSE 8080
CMD ["conduit", "serve"]
