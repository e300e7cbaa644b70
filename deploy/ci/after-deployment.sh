#!/usr/bin/env bash
# Compares AWS with the settings of CONFIG_ENV, and with Terraform if there is a state.json. Writes the report to
# resources.json and exits with the command's code.
set -euo pipefail
: "${CONFIG_ENV:?set CONFIG_ENV to qa, preprod or prod}"

arguments=(--format json)
if [ -f state.json ]; then
  arguments+=(--terraform state.json)
fi

regworkers aws find-resources "${arguments[@]}" > resources.json
