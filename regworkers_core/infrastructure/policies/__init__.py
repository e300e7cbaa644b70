"""Who may do what on AWS: one declaration, from which the files in deploy/policies, `regworkers aws iam-policy` and the
guard of the test suite come.
"""
