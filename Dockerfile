# Of one Python and one Debian, and with their security fixes; docs/security.md pins it to the last byte.
ARG BASE_IMAGE=python:3.13-slim-trixie

FROM ${BASE_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
# The dependencies are a layer of their own: a change of the source leaves it as it is.
COPY requirements/build.lock requirements/runtime.lock ./requirements/
RUN python -m venv /build/tools \
 && /build/tools/bin/python -m pip install --quiet --no-deps --require-hashes -r requirements/build.lock \
 && /build/tools/bin/python -m pip wheel --quiet --no-deps --no-build-isolation --require-hashes --wheel-dir wheels \
    -r requirements/runtime.lock \
 && python -m venv --without-pip /opt/relay \
 && python -m pip --python /opt/relay/bin/python install --quiet --no-deps --no-index wheels/*.whl
COPY pyproject.toml README.md LICENSE ./
COPY relay ./relay
RUN /build/tools/bin/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist . \
 && python -m pip --python /opt/relay/bin/python install --quiet --no-deps --no-index dist/*.whl

# What is in the image, by name, version and license, made from what was installed.
FROM build AS sbom
COPY requirements/sbom.lock ./requirements/
RUN python -m venv /build/sbom \
 && /build/sbom/bin/python -m pip install --quiet --no-deps --require-hashes -r requirements/sbom.lock \
 && /build/sbom/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
    --output-file /build/sbom.cdx.json /opt/relay/bin/python

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="audio-relay" \
      org.opencontainers.image.description="Carries one broadcaster's live audio to thousands of browser listeners." \
      org.opencontainers.image.licenses="MIT"
# The Opus encoder and a resampler for it; both have a BSD license.
RUN apt-get update --quiet=2 \
 && apt-get install --yes --quiet=2 --no-install-recommends libopus0 libspeexdsp1 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log
COPY --from=build /opt/relay /opt/relay
COPY --from=sbom /build/sbom.cdx.json /opt/relay/sbom.cdx.json
# Any address but loopback needs a broadcast key: give RELAY_BROADCAST_KEY when the container is run.
ENV PATH=/opt/relay/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    RELAY_SERVER_HOST=* \
    RELAY_LOG_FORMAT=json
# The build fails if the image has no NATS server, or cannot encode Opus and MP3, from every sample rate.
RUN nats-server --version && python -c "import lameenc, nats, nkeys; from relay.media.transcoding import *; \
make_transcoder(AudioFormat(rate=44100), Codec.OPUS, OpusEncoding())"
# A number, so that an orchestrator can see that it is not root.
USER 10001:10001
WORKDIR /
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s --retries=3 CMD ["relay", "health"]
ENTRYPOINT ["relay"]
CMD ["serve"]
