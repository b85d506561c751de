# CPU:  docker build -t msmae .
# CUDA: docker build -t msmae-cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126 .
# Use:  docker run --rm -v "$PWD":/data msmae run /data/images --out /data/runs/mine       (CUDA: add --gpus all)
FROM python:3.11-slim
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 MSMAE_CACHE=/tmp/msmae
WORKDIR /opt/msmae
COPY requirements.lock ./
RUN pip install --index-url "$TORCH_INDEX" "$(grep '^torch==' requirements.lock)" \
    && pip install --requirement requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN pip install --no-deps --no-build-isolation .
WORKDIR /data
ENTRYPOINT ["msmae"]
CMD ["--help"]
