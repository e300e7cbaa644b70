#!/usr/bin/env bash
# Checks Kafka's client certificate of CONFIG_ENV. Prints the report, writes it to certificates.json, and exits with the
# command's code; 2 without CONFIG_ENV.
set -euo pipefail
if [ -z "${CONFIG_ENV:-}" ]; then
  echo "set CONFIG_ENV to qa, preprod or prod" >&2
  exit 2
fi

regworkers certs check --env "$CONFIG_ENV" --format json | tee certificates.json
