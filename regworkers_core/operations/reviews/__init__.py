"""What is looked at every week, month and quarter, as a report that is written whatever could be read.

`sections` says what a report consists of, `history` reads what drains did; `weekly`, `monthly` and `quarterly` are the
sections in their order, `make` puts a review together, `page` shows it, `publish` keeps it on S3.
"""
