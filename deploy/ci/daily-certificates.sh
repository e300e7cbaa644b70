#!/usr/bin/env bash
# Checks Kafka's client certificate of CONFIG_ENV. Writes the report to certificates.json and exits with the command's
# code.
set -euo pipefail
: "${CONFIG_ENV:?set CONFIG_ENV to qa, preprod or prod}"

regworkers certs check --env "$CONFIG_ENV" --format json > certificates.json
