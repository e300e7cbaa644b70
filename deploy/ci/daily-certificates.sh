#!/usr/bin/env bash
# Checks Kafka's client certificate of CONFIG_ENV: the job inspects it, the command prints the report and writes it to
# certificates.json. Exits with the command's code, or else the job's; 2 without CONFIG_ENV.
set -euo pipefail
if [ -z "${CONFIG_ENV:-}" ]; then
  echo "set CONFIG_ENV to qa, preprod or prod" >&2
  exit 2
fi

# In an instance of its own: a pipeline does not reach the database of Dagster.
status=0
env -u DAGSTER_HOME dagster job execute -m regworkers_dagster.definitions -j check_certificate >&2 || status=$?
regworkers certs check --env "$CONFIG_ENV" --format json | tee certificates.json || status=$?
exit "$status"
