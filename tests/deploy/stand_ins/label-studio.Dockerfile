# Stands in for the published Label Studio image: the same release from its package, under the same user id.
FROM carcond-check/python
ARG LABEL_STUDIO_VERSION=1.23.2
COPY pip.conf /etc/pip.conf
ENV LABEL_STUDIO_BASE_DATA_DIR=/label-studio/data HOME=/label-studio
RUN pip install --no-cache-dir "label-studio==${LABEL_STUDIO_VERSION}"
RUN useradd -u 1001 -r -d /label-studio -g 0 label-studio \
    && mkdir -p /label-studio/data \
    && chown -R 1001:0 /label-studio
WORKDIR /label-studio
USER 1001
VOLUME /label-studio/data
EXPOSE 8080
CMD ["label-studio"]
