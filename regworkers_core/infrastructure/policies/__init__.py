"""IAM policies, declared once: Terraform, `regworkers aws iam-policy` and the guard of the test suite use them."""
