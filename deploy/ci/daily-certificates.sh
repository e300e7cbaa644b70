#!/usr/bin/env bash
# Kafka's client certificate of CONFIG_ENV; the report stays in certificates.json, the exit code is the command's.
set -euo pipefail
: "${CONFIG_ENV:?set CONFIG_ENV to qa, preprod or prod}"

regworkers certs check --env "$CONFIG_ENV" --format json > certificates.json
