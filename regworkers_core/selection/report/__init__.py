"""The report of a draw: funnel, odds, bias audit, plots, page; and the simulation of one."""
