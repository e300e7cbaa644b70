"""CloudWatch's dashboard, alarms and saved queries. `regworkers aws publish-dashboards` and Terraform publish them."""
