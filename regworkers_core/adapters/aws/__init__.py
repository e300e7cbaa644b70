"""DynamoDB, its streams, SQS, S3, CloudWatch and Secrets Manager through boto3."""
