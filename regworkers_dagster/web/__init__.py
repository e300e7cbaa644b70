"""The one application through which people reach Dagster: its own webserver, behind checks of who sends a request.

`guard` refuses what another page or another host name sends. `operators` says who asks. `mutations` puts that name on
every launch and writes down every other change. `files` is the upload form, the reports and what jobs hand out.
`serve` starts it all: `regworkers-web`, with the options of `dagster-webserver`.
"""
