# nl-lightning on CPUs.
#
#   docker build -t nl-lightning .
#   docker run --rm -v "$PWD:/work" nl-lightning run table2 --recipe longrange_smoke
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends ffmpeg && rm -rf /var/lib/apt/lists/*  # for TorchCodec
WORKDIR /source
COPY pyproject.toml setup.py MANIFEST.in constraints.txt README.md LICENSE ./
COPY nl_lightning nl_lightning
COPY experiments experiments
COPY results/records results/records
COPY results/weights results/weights
# PyTorch's ordinary packages run on CPUs too. Its packages for CPUs alone are a tenth of the size: name their index in
# --build-arg PIP_OPTIONS="--extra-index-url URL".
ARG PIP_OPTIONS=""
RUN pip install --no-cache-dir --constraint constraints.txt $PIP_OPTIONS '.[all]'
WORKDIR /work
ENTRYPOINT ["nl-lightning"]
