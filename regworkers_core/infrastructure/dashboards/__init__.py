"""CloudWatch's dashboard, alarms and saved queries, which Terraform publishes."""
