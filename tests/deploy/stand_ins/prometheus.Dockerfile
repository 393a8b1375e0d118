# Stands in for the published Prometheus image: Debian's Prometheus, which is release 2 and not 3, under the same user
# id, with the `wget` that the health check calls.
FROM carcond-check/debian:bookworm
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends prometheus wget \
    && rm -rf /var/lib/apt/lists/* \
    && mkdir -p /prometheus \
    && chown 65534:65534 /prometheus
USER 65534:65534
VOLUME /prometheus
WORKDIR /prometheus
EXPOSE 9090
ENTRYPOINT ["/usr/bin/prometheus"]
