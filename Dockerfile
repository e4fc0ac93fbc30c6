# docker build -t speech-relay .
# docker run -v ./config.yaml:/app/config.yaml:ro -v data:/app/var --env-file .env speech-relay
# Pin the base by digest in builds of your own: --build-arg BASE=python:3.11-slim-bookworm@sha256:… (docs/how-to/run-in-docker.md).
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1
WORKDIR /src
# moonshine: local speech recognition, 120 MB. `--build-arg EXTRAS=` leaves it out.
ARG EXTRAS=moonshine
COPY requirements.lock requirements-moonshine.lock requirements-build.lock ./
RUN python -m venv --without-pip /opt/relay \
 && python -m venv /opt/build \
 && /opt/build/bin/pip install --no-compile --require-hashes -r requirements-build.lock \
 && /opt/build/bin/uv pip install --python /opt/relay --require-hashes -r "requirements${EXTRAS:+-${EXTRAS}}.lock"
COPY pyproject.toml README.md ./
COPY relay relay
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /opt/build/bin/uv pip install --python /opt/relay --no-deps /wheels/*.whl \
 && find /opt/relay/lib -path '*/numpy/*' -type d -name tests -prune -exec rm -rf {} + \
 && /opt/relay/bin/python -m compileall -qq -f --invalidation-mode unchecked-hash /opt/relay/lib
# Unchecked: copying into the next stage may change the files' times, and all of it would be compiled again at each start.

FROM ${BASE}
RUN groupadd --gid 10001 relay \
 && useradd --uid 10001 --gid relay --home-dir /app --no-create-home --shell /usr/sbin/nologin relay \
 && mkdir /app \
 && install --directory --mode 0700 --owner relay --group relay /app/var
COPY --from=build /opt/relay /opt/relay
ENV PATH=/opt/relay/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /app
USER 10001:10001
# Alive, not ready: a relay that waits for LiveKit to come back must not be restarted. With `api: {listen: null}` or
# another port this needs --no-healthcheck or a --health-cmd of your own.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8790/healthz', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["speech-relay"]
CMD ["run"]
