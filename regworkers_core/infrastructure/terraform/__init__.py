"""What the module in deploy/terraform reads from files: alarms, dashboard, roles, numbers of the settings."""
