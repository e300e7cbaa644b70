#!/usr/bin/env bash
# Compares AWS with the settings of CONFIG_ENV, and with Terraform if there is a state.json: the job judges, the command
# prints the report and writes it to resources.json. Exits with the command's code, or else the job's; 2 without
# CONFIG_ENV.
set -euo pipefail
if [ -z "${CONFIG_ENV:-}" ]; then
  echo "set CONFIG_ENV to qa, preprod or prod" >&2
  exit 2
fi

arguments=(--format json)
config='{}'
if [ -f state.json ]; then
  arguments+=(--terraform state.json)
  config='{"terraform_file": "state.json"}'
fi

# In an instance of its own: a pipeline does not reach the database of Dagster.
status=0
env -u DAGSTER_HOME dagster job execute -m regworkers_dagster.definitions -j find_resources --config-json "$config" >&2 || status=$?
regworkers aws find-resources "${arguments[@]}" | tee resources.json || status=$?
exit "$status"
