#!/usr/bin/env bash
# Compares AWS with the settings of CONFIG_ENV, and with Terraform where state.json lies beside. The report stays in
# resources.json; the exit code is the command's.
set -euo pipefail
: "${CONFIG_ENV:?set CONFIG_ENV to qa, preprod or prod}"

arguments=(--format json)
if [ -f state.json ]; then
  arguments+=(--terraform state.json)
fi

regworkers aws find-resources "${arguments[@]}" > resources.json
