#!/usr/bin/env bash
# Compares AWS with the settings of CONFIG_ENV, and with Terraform if there is a state.json. Prints the report,
# writes it to resources.json, and exits with the command's code; 2 without CONFIG_ENV.
set -euo pipefail
if [ -z "${CONFIG_ENV:-}" ]; then
  echo "set CONFIG_ENV to qa, preprod or prod" >&2
  exit 2
fi

arguments=(--format json)
if [ -f state.json ]; then
  arguments+=(--terraform state.json)
fi

regworkers aws find-resources "${arguments[@]}" | tee resources.json
