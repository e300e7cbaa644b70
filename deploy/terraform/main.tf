# What the settings of each environment decide comes from generated/<environment>.json
# (python -m regworkers_core.infrastructure.terraform); a test compares this module with them.
locals {
  generated = jsondecode(file("${path.module}/generated/${var.environment}.json"))
  prefix    = local.generated.prefix
  day       = 86400
}

# Tables: any second of the last 35 days can be restored, as another table.
resource "aws_dynamodb_table" "demand" {
  name                        = "${local.prefix}demand-table"
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "PK"
  range_key                   = "SK"
  stream_enabled              = true
  stream_view_type            = "NEW_AND_OLD_IMAGES"
  deletion_protection_enabled = true

  attribute {
    name = "PK"
    type = "S"
  }

  attribute {
    name = "SK"
    type = "S"
  }

  ttl {
    attribute_name = "ttl"
    enabled        = true
  }

  point_in_time_recovery {
    enabled = true
  }
}

resource "aws_dynamodb_table" "leases" {
  name         = "${local.prefix}worker-leases"
  billing_mode = "PAY_PER_REQUEST"
  hash_key     = "PK"
  range_key    = "SK"

  attribute {
    name = "PK"
    type = "S"
  }

  attribute {
    name = "SK"
    type = "S"
  }

  point_in_time_recovery {
    enabled = true
  }
}

resource "aws_cloudwatch_log_group" "workers" {
  name              = "/${local.prefix}regworkers"
  retention_in_days = local.generated.log_retention_days
}
