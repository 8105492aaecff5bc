# Two stages: one installs edge-harness and fetches an engine, the other runs them. Nothing is compiled.
# podman builds and runs the same file: podman build -t edge-harness . && podman run --rm edge-harness check
ARG PYTHON=3.12.14-slim-bookworm@sha256:782412e85d0f0984994c290652577d4018aff08145c85b262bb63dc0c7522254

FROM python:${PYTHON} AS build
# The base image pins the release; security updates of the library are wanted.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --no-install-recommends -y libgomp1 \
 && rm -rf /var/lib/apt/lists/*
ENV PIP_NO_CACHE_DIR=1 PATH=/opt/edge-harness/bin:$PATH
WORKDIR /src
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY harness harness
COPY devices devices
COPY models models
RUN python -m venv /opt/edge-harness \
 && pip install ".[xllamacpp,report]"
# A library for each instruction set: the image may run on another processor than the one that built it. Where the
# release cannot be had, the wheel's engine runs, which knows AVX2 alone.
RUN mkdir /opt/engines \
 && EDGE_HARNESS_CACHE=/opt/engines edge-harness engines pull \
 || echo "no engine was fetched: the wheel's runs"

FROM python:${PYTHON}
# llama.cpp's CPU backend needs the OpenMP runtime.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --no-install-recommends -y libgomp1 tini \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 10001 harness
COPY --from=build /opt/edge-harness /opt/edge-harness
COPY --from=build /opt/engines /opt/engines
ENV PATH=/opt/edge-harness/bin:$PATH \
    LLAMA_CPP_LIB_PATH=/opt/engines/engine \
    EDGE_HARNESS_CACHE=/data/cache \
    EDGE_HARNESS_HOME=/data/home
RUN mkdir -p /data && chown harness /data
VOLUME /data
USER 10001
WORKDIR /data
# tini, the first process, ends what a measured child leaves behind.
ENTRYPOINT ["tini", "--", "edge-harness"]
CMD ["check"]
