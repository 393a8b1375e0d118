# Three images of one code base: `backend` serves, refits and sets up; `training` has PyTorch besides, makes encoders and
# fine-tunes them; `demo` has Streamlit besides and shows pages. A change of code rebuilds only their last, small layers.

# By digest, where one is known: --build-arg PYTHON_IMAGE=python:3.11.13-slim-bookworm@sha256:...
ARG PYTHON_IMAGE=python:3.11.13-slim-bookworm
FROM ${PYTHON_IMAGE} AS python
ENV PATH=/opt/code/bin:/opt/packages/bin:$PATH \
    PYTHONPATH=/opt/code \
    PIP_PYTHON=/opt/packages/bin/python3 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1

# The lists of packages alone, so that other changes of pyproject.toml install nothing anew.
FROM python AS requirements
WORKDIR /lists
COPY pyproject.toml docker/list_requirements.py ./
# Extras of pyproject.toml that all images are to have: "s3" where models are in an object store.
ARG EXTRAS=""
RUN python3 list_requirements.py ${EXTRAS}

FROM python AS packages
# pip stays outside: the images that run have no use for it.
RUN python3 -m venv --without-pip /opt/packages
COPY constraints.txt requirements-no-deps.txt /lists/
COPY --from=requirements /lists/runtime.txt /lists/
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=secret,id=pip,target=/root/.config/pip/pip.conf \
    pip install --constraint /lists/constraints.txt --requirement /lists/runtime.txt \
    && pip install --no-deps --requirement /lists/requirements-no-deps.txt \
    # Tests and C sources are a twentieth of it. NumPy's `_natype` is among its tests and imported all the same.
    && find /opt/packages -type f \( -regex '.*\.\(a\|c\|cpp\|h\|hpp\|pxd\|pyx\|tp\)' -o \
        -path '*/tests/*' -not -name '_natype.*' -not -name '__init__.*' \) -delete

# Lists all packages of an image with their releases and licences (CycloneDX); the images themselves do without it.
FROM python AS sbom-tools
COPY constraints.txt /lists/
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=secret,id=pip,target=/root/.config/pip/pip.conf \
    python3 -m venv --without-pip /opt/sbom-tools \
    && pip --python /opt/sbom-tools/bin/python3 install --constraint /lists/constraints.txt cyclonedx-bom

FROM sbom-tools AS sbom
RUN --mount=type=bind,from=packages,source=/opt/packages,target=/opt/packages \
    /opt/sbom-tools/bin/cyclonedx-py environment /opt/packages/bin/python3 --output-file /sbom.cdx.json

FROM packages AS code
WORKDIR /source
COPY --from=requirements /lists/build.txt /lists/
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=secret,id=pip,target=/root/.config/pip/pip.conf \
    pip install --requirement /lists/build.txt
COPY pyproject.toml README.md ./
COPY carcond carcond
COPY backend backend
RUN pip install --no-cache-dir --no-deps --no-build-isolation --no-index \
        --target /opt/code .
COPY scripts/__init__.py scripts/label_studio_server.py scripts/credentials.py scripts/photo_import.py \
    scripts/preflight.py /opt/code/scripts/
COPY docker /opt/code/docker
# A checkout made under a strict umask is not readable by the users of the image.
RUN chmod -R a+rX /opt/code && chmod a+x /opt/code/docker/entrypoint

FROM python AS runtime
# 10000 keeps the passwords, 10001 runs carcond. New volumes take over the owner of the folder they are mounted on.
RUN groupadd --gid 10000 keeper && useradd --uid 10000 --gid 10000 --no-create-home --home-dir /tmp keeper \
    && groupadd --gid 10001 carcond && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp carcond \
    && install -d -o 10000 -g 10000 -m 755 /secrets \
    && install -d -o 10001 -g 10001 -m 755 /models /setup /label-studio/files/samples
ENV HOME=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib \
    HF_HOME=/models/hub \
    CARCOND_MODELS_DIR=/models \
    CARCOND_BIND=0.0.0.0:9090
WORKDIR /opt
USER 10001:10001
EXPOSE 9090
ENTRYPOINT ["/opt/code/docker/entrypoint"]
CMD ["python3", "-m", "gunicorn", "--config", "python:backend.gunicorn_conf", "backend.app:create_app()"]

FROM runtime AS backend
COPY --from=packages /opt/packages /opt/packages
COPY --from=sbom /sbom.cdx.json /usr/share/carcond/sbom.cdx.json
COPY --from=code /opt/code /opt/code
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="carcond" \
      org.opencontainers.image.description="Label Studio ML backend for active learning on car photos" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

FROM runtime AS demo-packages
COPY --from=packages /opt/packages /opt/packages
COPY constraints.txt /lists/
COPY --from=requirements /lists/demo.txt /lists/
USER 0
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=secret,id=pip,target=/root/.config/pip/pip.conf \
    HOME=/root pip install --constraint /lists/constraints.txt --requirement /lists/demo.txt
USER 10001:10001

FROM sbom-tools AS demo-sbom
RUN --mount=type=bind,from=demo-packages,source=/opt/packages,target=/opt/packages \
    /opt/sbom-tools/bin/cyclonedx-py environment /opt/packages/bin/python3 --output-file /sbom.cdx.json

FROM demo-packages AS demo
COPY --from=demo-sbom /sbom.cdx.json /usr/share/carcond/sbom.cdx.json
COPY --from=code /opt/code /opt/code
EXPOSE 8501
CMD ["python3", "-m", "streamlit", "run", "/opt/code/backend/dashboard/app.py", "--server.address=0.0.0.0", "--server.port=8501"]
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="carcond-demo" \
      org.opencontainers.image.description="Pages that show what carcond sees and how it learns" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

FROM runtime AS training-packages
COPY --from=packages /opt/packages /opt/packages
COPY --from=requirements /lists/train.txt /lists/
# Where PyTorch comes from beside pip's own index: PyTorch has an index for CPUs, and one for each release of CUDA.
# None of them has every release, so constraints.txt does not hold here.
ARG TORCH_INDEX_URL=""
USER 0
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=secret,id=pip,target=/root/.config/pip/pip.conf \
    HOME=/root pip install --requirement /lists/train.txt \
        ${TORCH_INDEX_URL:+--extra-index-url "${TORCH_INDEX_URL}"}
USER 10001:10001
# A new volume takes over what lies in the folder that it is mounted on: /models.
ARG BACKBONE=efficientnet_b4
COPY docker/prefetch_weights.py /lists/
RUN python3 /lists/prefetch_weights.py "${BACKBONE}"

FROM sbom-tools AS training-sbom
RUN --mount=type=bind,from=training-packages,source=/opt/packages,target=/opt/packages \
    /opt/sbom-tools/bin/cyclonedx-py environment /opt/packages/bin/python3 --output-file /sbom.cdx.json

FROM training-packages AS training
COPY --from=training-sbom /sbom.cdx.json /usr/share/carcond/sbom.cdx.json
COPY --from=code /opt/code /opt/code
CMD ["carcond", "encoder"]
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="carcond-training" \
      org.opencontainers.image.description="carcond with PyTorch, which makes encoders" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
