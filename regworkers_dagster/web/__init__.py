"""The application through which people reach Dagster: its own webserver, behind checks of each request.

`guard` refuses what another page or another host name sends, and names the person. `rights` says which launches the
person's groups allow, and which need a second person. `mutations` puts that name on every launch and records every
other change. `serve` has the upload form, the reports and the files of jobs, and starts all of it: `regworkers-web`,
with the options of `dagster-webserver`.
"""
