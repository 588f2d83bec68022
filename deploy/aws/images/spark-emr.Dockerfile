# syntax=docker/dockerfile:1
# The image of the EMR Serverless application: EMR's own Spark with our Python environment, jars and code.
#   docker build -f deploy/aws/images/spark-emr.Dockerfile -t <registry>/airloop-<environment>/spark-emr:<version> .
#
# Not built by us: no machine of its authors has a Docker engine, nor reaches EMR's base images. What is not certain
# before the first build is the name of the base image (ask the image gallery for the release in infrastructure/jobs.py),
# and that Python 3.11 is called python3.11 in it, as the release notes of emr-spark-8.0.0 say.
#
# PySpark is EMR's, 4.0.2, and not the locked one, so that Python and JVM are of one version.
ARG EMR=public.ecr.aws/emr-serverless/spark/emr-spark-8.0.0:latest

# hadolint ignore=DL3006
FROM ${EMR} AS environment
# Of this stage only the files are taken.
# hadolint ignore=DL3002,DL3066
USER root
COPY requirements/uv.lock requirements/spark.lock /requirements/
RUN python3.11 -m venv /uv \
 && /uv/bin/pip install --quiet --no-cache-dir --require-hashes -r /requirements/uv.lock \
 && /uv/bin/uv venv --quiet --python python3.11 /venv \
 && /uv/bin/uv pip sync --quiet --no-cache --compile-bytecode --python /venv/bin/python --require-hashes \
      /requirements/spark.lock \
 && /uv/bin/uv pip uninstall --quiet --python /venv/bin/python pyspark

FROM environment AS jars
COPY scripts/fetch_jars.py /build/scripts/
COPY deploy/aws/images/fetch_emr_jars.py requirements/emr-jars.sha256 /build/
WORKDIR /build
# Resolved by EMR's own Spark; the sums are checked.
RUN PYTHONPATH=/build/scripts:/usr/lib/spark/python:$(echo /usr/lib/spark/python/lib/py4j-*-src.zip) \
      SPARK_HOME=/usr/lib/spark /venv/bin/python fetch_emr_jars.py /build/jars \
 && sha256sum --check emr-jars.sha256

# hadolint ignore=DL3006
FROM ${EMR}
# hadolint ignore=DL3066
USER root
COPY --from=environment /venv /venv
COPY --from=jars /build/jars /airloop/.airloop/jars
COPY src /airloop/src
COPY spark_jobs /airloop/spark_jobs
COPY feature_repo /airloop/feature_repo
ARG COMMIT=unknown
RUN echo "${COMMIT}" > /airloop/COMMIT
# EMR starts its programs as this user, and refuses images that end with another.
# hadolint ignore=DL3066
USER hadoop:hadoop
