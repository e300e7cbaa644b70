"""The funnel of a campaign: from registered to notified, per market, segment and day.

In the order of the data: `staging` reads every source into narrow files, `counting` aggregates them, `funnel_report`
explains numbers that do not fit, `funnel_page` renders and stores the result.
"""
