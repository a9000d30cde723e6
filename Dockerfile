# CPU image: docker build -t lightning_mbir . && docker run --rm -v "$PWD":/work lightning_mbir predict --task cs_mri
# Checked by hadolint in tests/test_packaging.py, and what it copies by building a wheel of that; built by no test.
# For a GPU: --build-arg INDEX=https://download.pytorch.org/whl/cu126, and docker run --gpus all.
FROM python:3.11-slim-bookworm

ARG INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /opt/lightning_mbir
COPY pyproject.toml hatch_build.py constraints.txt README.md LICENSE LightningCLI.yaml ./
COPY configs configs
COPY lightning_mbir lightning_mbir
RUN pip install --no-cache-dir --extra-index-url "$INDEX" -c constraints.txt '.[dicom,noncartesian]' \
    && useradd --create-home --uid 1000 reader

# Files of strangers are decoded by C libraries: not as root (SECURITY.md).
USER 1000
WORKDIR /work
ENTRYPOINT ["lightning-mbir"]
CMD ["--help"]
