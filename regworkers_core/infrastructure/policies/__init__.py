"""Who may do what on AWS: one declaration, from which Terraform, `regworkers aws iam-policy` and the guard of the test
suite take it.
"""
