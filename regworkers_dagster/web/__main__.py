"""`python -m regworkers_dagster.web`, as `regworkers-web`."""

from regworkers_dagster.web.serve import main

main()
