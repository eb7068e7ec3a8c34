# roomcast in a container: `docker build -t roomcast .`
#
# The first stage compiles; the second one has the program, the C library, certificates, and no shell.

FROM rust:1.95-slim-trixie AS build
WORKDIR /roomcast
COPY . .
# The caches stay with the builder: neither registry nor build products reach the image.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/roomcast/target \
    cargo build --locked --release --bin roomcast && cp target/release/roomcast /usr/bin/roomcast
# The folder of a lone node's store, owned by the user of the second stage. A volume mounted there inherits its owner.
RUN install -d -o 65532 -g 65532 -m 700 /var/lib/roomcast

FROM gcr.io/distroless/cc-debian13:nonroot
COPY --from=build /usr/bin/roomcast /usr/bin/roomcast
COPY --from=build --chown=65532:65532 /var/lib/roomcast /var/lib/roomcast
# The default folder of the store (./data) is under it.
WORKDIR /var/lib/roomcast
USER 65532:65532
EXPOSE 7600 7601 7602
# It reads the configuration of the environment, as the node does. A node with --config needs a check with --config.
HEALTHCHECK --interval=10s --timeout=7s --start-period=60s --retries=3 CMD ["/usr/bin/roomcast", "health"]
# As the container's first process the node hears SIGTERM itself. It drains within 30 s: give `docker stop` 45.
ENTRYPOINT ["/usr/bin/roomcast"]
