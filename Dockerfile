# docker build -t cgan .
# docker run --rm -v "$PWD:/work" cgan train --conditional
#
# PyPI's torch for Linux contains CUDA: add --gpus all to docker run. To keep the torch of another
# image (2.11 or newer), name it: docker build --build-arg BASE=pytorch/pytorch:TAG -t cgan .
ARG BASE=python:3.12-slim
FROM ${BASE}

COPY . /src
RUN pip install --no-cache-dir "/src[onnx,hub]" && rm -rf /src

# Data sets, judges and encoders; mount a volume here to keep them.
ENV CGAN_CACHE=/cache HF_HOME=/cache/huggingface
RUN mkdir -m 777 /cache
WORKDIR /work
ENTRYPOINT ["cgan"]
CMD ["--help"]
