# One key for tables, queues, buckets and the log group, if `own_key` is set. Otherwise each service encrypts with one
# of its own.
locals {
  keys = var.own_key ? [aws_kms_key.data["data"].arn] : []
  key  = var.own_key ? aws_kms_key.data["data"].arn : null
}

resource "aws_kms_key" "data" {
  for_each = toset(var.own_key ? ["data"] : [])

  description             = "Data of regworkers in ${var.environment}"
  enable_key_rotation     = true
  deletion_window_in_days = 30

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "LetPoliciesOfThisAccountDecide"
        Effect    = "Allow"
        Principal = { AWS = "arn:aws:iam::${var.account}:root" }
        Action    = "kms:*"
        Resource  = "*"
      },
      {
        Sid       = "EncryptLogs"
        Effect    = "Allow"
        Principal = { Service = "logs.${local.generated.region}.amazonaws.com" }
        Action    = ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*"]
        Resource  = "*"
        Condition = {
          ArnEquals = {
            "kms:EncryptionContext:aws:logs:arn" = "arn:aws:logs:${local.generated.region}:${var.account}:log-group:${local.generated.log_group.name}"
          }
        }
      },
    ]
  })
}

resource "aws_kms_alias" "data" {
  for_each = aws_kms_key.data

  name          = "alias/${local.prefix}regworkers"
  target_key_id = each.value.arn
}

# Every role reads and writes something that the key encrypts. DynamoDB and SQS use it in the caller's name.
resource "aws_iam_role_policy" "key" {
  for_each = var.own_key ? toset(local.generated.roles) : toset([])

  name = "key"
  role = aws_iam_role.service_account[each.value].name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid      = "UseTheKey"
      Effect   = "Allow"
      Action   = ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*"]
      Resource = local.key
    }]
  })
}

resource "aws_iam_role_policy" "eligibility_key" {
  for_each = var.own_key ? local.functions : toset([])

  name   = "key"
  role   = aws_iam_role.eligibility[each.value].name
  policy = aws_iam_role_policy.key["sensors"].policy
}
