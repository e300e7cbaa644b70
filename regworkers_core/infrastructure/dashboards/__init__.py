"""What CloudWatch shows of the workers and when it alarms: declared here, published by
`regworkers aws publish-dashboards` and by Terraform.
"""
