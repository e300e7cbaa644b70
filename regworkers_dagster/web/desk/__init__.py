"""The desk: pages for campaign managers and for who is on call, beside Dagster's UI.

`forms` makes a form of each operation from its declaration, and the config of a run from what was typed. `runs` reads
what a run did. The pages are in `campaigns`, `health` and `acts`, in the frame of `frame`. They only read; what a form
sends launches a job by Dagster's GraphQL, with the rights, the second person and the record of any other launch. What a
page shows is in `regworkers_core/reporting/templates/desk*`.
"""
