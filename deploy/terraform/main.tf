# Names, numbers and documents come from ../generated/<environment>.json, which `make deploy-files` writes from the
# settings of the environment. A test compares this module with them.
locals {
  generated = jsondecode(file("${path.module}/../generated/${var.environment}.json"))
  prefix    = local.generated.prefix
}

# Point-in-time recovery restores any second of the last 35 days, as another table.
resource "aws_dynamodb_table" "all" {
  for_each = local.generated.tables

  name                        = "${local.prefix}${each.key}"
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "PK"
  range_key                   = "SK"
  stream_enabled              = each.value.stream_view != null
  stream_view_type            = each.value.stream_view
  deletion_protection_enabled = each.value.deletion_protection

  attribute {
    name = "PK"
    type = "S"
  }

  attribute {
    name = "SK"
    type = "S"
  }

  dynamic "ttl" {
    for_each = each.value.ttl

    content {
      attribute_name = ttl.value
      enabled        = true
    }
  }

  point_in_time_recovery {
    enabled = each.value.point_in_time_recovery
  }

  # Without one of ours, DynamoDB encrypts with a key of its own.
  dynamic "server_side_encryption" {
    for_each = local.keys

    content {
      enabled     = true
      kms_key_arn = server_side_encryption.value
    }
  }
}

moved {
  from = aws_dynamodb_table.demand
  to   = aws_dynamodb_table.all["demand-table"]
}

moved {
  from = aws_dynamodb_table.leases
  to   = aws_dynamodb_table.all["worker-leases"]
}

resource "aws_cloudwatch_log_group" "workers" {
  name              = local.generated.log_group.name
  retention_in_days = local.generated.log_group.retention_days
  kms_key_id        = local.key
}
