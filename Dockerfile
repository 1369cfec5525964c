# The reconstruction server in a container. Weights and recipes are inside; nothing is fetched when it runs.
#
#   docker build -t mrisps .                                                            for processors
#   docker build -t mrisps --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .   for NVIDIA cards
#
# PyTorch for NVIDIA cards brings CUDA along: the host needs the driver and the NVIDIA container toolkit. BASE can be any Debian or
# Ubuntu with Python 3.11 or newer, such as nvidia/cuda:12.8.1-base-ubuntu24.04.
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN command -v python3 && python3 -m venv --help > /dev/null \
    || (apt-get update && apt-get install -y --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/*)
WORKDIR /source
RUN python3 -m venv /opt/mrisps
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY constraints.txt ./
RUN /opt/mrisps/bin/pip install -c constraints.txt --index-url ${TORCH_INDEX} --extra-index-url https://pypi.org/simple torch
COPY pyproject.toml README.md LICENSE ./
COPY mrisps mrisps
COPY recipes recipes
COPY data_manifests data_manifests
RUN /opt/mrisps/bin/pip install -c constraints.txt '.[dicom]'

FROM ${BASE}
RUN command -v python3 \
    || (apt-get update && apt-get install -y --no-install-recommends python3 && rm -rf /var/lib/apt/lists/*)
COPY --from=build /opt/mrisps /opt/mrisps
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin mrisps
ENV PATH=/opt/mrisps/bin:$PATH PYTHONDONTWRITEBYTECODE=1 MPLCONFIGDIR=/tmp \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001
WORKDIR /tmp
EXPOSE 9002
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["mrisps", "serve", "--check"]
ENTRYPOINT ["mrisps"]
# Inside the container all addresses: which of the host's it is reached at is said by `docker run --publish`.
CMD ["serve", "--host", "0.0.0.0"]
