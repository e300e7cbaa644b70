"""The funnel of a campaign: from registered to notified, per market, segment and day.

In data order: `staging` reads every source into narrow files, `counting` makes numbers of them, `findings` says which
do not fit and why, `report` does all of that, `page` shows it to people.
"""
