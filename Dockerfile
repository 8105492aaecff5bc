# Two stages: a compiler builds llama-cpp-python into a virtual environment; the image that runs has none.
# podman builds and runs the same file: podman build -t edge-harness . && podman run --rm edge-harness check
ARG PYTHON=3.12.8-slim-bookworm

FROM python:${PYTHON} AS build
# The base image pins the release; security updates of the compiler are wanted.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --no-install-recommends -y build-essential cmake \
 && rm -rf /var/lib/apt/lists/*
# A portable build: the image may run on another processor than the one that built it.
ENV CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON" PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
# The engine first, in a layer of its own: a change of the harness compiles nothing.
RUN python -m venv /opt/edge-harness \
 && python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['llama'], sep='\n')" > engine.txt \
 && /opt/edge-harness/bin/pip install -r engine.txt
COPY harness harness
COPY devices devices
COPY models models
RUN /opt/edge-harness/bin/pip install ".[llama,hub,report]"

FROM python:${PYTHON}
# llama.cpp's CPU backend needs the OpenMP runtime; tini, the first process, ends what a measured child leaves behind.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --no-install-recommends -y libgomp1 tini \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 10001 harness
COPY --from=build /opt/edge-harness /opt/edge-harness
ENV PATH=/opt/edge-harness/bin:$PATH \
    EDGE_HARNESS_CACHE=/data/cache \
    EDGE_HARNESS_HOME=/data/home
RUN mkdir -p /data && chown harness /data
VOLUME /data
USER 10001
WORKDIR /data
ENTRYPOINT ["tini", "--", "edge-harness"]
CMD ["check"]
