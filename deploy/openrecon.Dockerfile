# The container with the label that OpenRecon reads: build the image mrisps first, then
#
#   docker build -t openrecon_mrisps -f deploy/openrecon.Dockerfile \
#     --build-arg LABEL="$(base64 -w 0 deploy/OpenReconLabel.json)" deploy
ARG BASE=mrisps
FROM ${BASE}
ARG LABEL
LABEL "com.siemens-healthineers.magneticresonance.openrecon.metadata:1.1.0"="${LABEL}"
