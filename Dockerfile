# The command `greenmim` in a container:
#
#     docker build --build-arg DEVICE=cpu -t greenmim .    (or cuda)
#     docker run --gpus all --shm-size 8g -v "$PWD/photos:/data" -v "$PWD/runs:/work" greenmim pretrain /data
FROM python:3.11-slim-bookworm

# cpu or cuda; the packages of the index itself are built for CUDA.
ARG DEVICE=cuda
ENV PIP_NO_CACHE_DIR=1

# What the desktop build of OpenCV loads, which MMEngine requires.
RUN apt-get update && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 && rm -rf /var/lib/apt/lists/*

COPY . /src/greenmim
WORKDIR /src/greenmim
RUN if [ "$DEVICE" = cpu ]; then \
        pip install -c requirements/constraints.txt --index-url https://download.pytorch.org/whl/cpu torch torchvision; \
    fi
RUN pip install -c requirements/constraints.txt ".[openmmlab]"
RUN greenmim doctor

WORKDIR /work
ENTRYPOINT ["greenmim"]
CMD ["--help"]
