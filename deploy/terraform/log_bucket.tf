# Dagster's compute logs: what each run wrote. `manage_log_bucket = false` leaves a bucket that exists to its owner.
locals {
  log_buckets = toset(var.manage_log_bucket ? [var.log_bucket] : [])
}

resource "aws_s3_bucket" "compute_logs" {
  for_each = local.log_buckets

  bucket = each.value
}

resource "aws_s3_bucket_public_access_block" "compute_logs" {
  for_each = local.log_buckets

  bucket                  = aws_s3_bucket.compute_logs[each.value].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_server_side_encryption_configuration" "compute_logs" {
  for_each = local.log_buckets

  bucket = aws_s3_bucket.compute_logs[each.value].id

  rule {
    bucket_key_enabled = true

    apply_server_side_encryption_by_default {
      sse_algorithm     = local.key == null ? "AES256" : "aws:kms"
      kms_master_key_id = local.key
    }
  }
}

resource "aws_s3_bucket_policy" "compute_logs" {
  for_each = local.log_buckets

  bucket = aws_s3_bucket.compute_logs[each.value].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "RefuseAccessWithoutTls"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:*"
      Resource  = ["arn:aws:s3:::${each.value}", "arn:aws:s3:::${each.value}/*"]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })
}

# Every run may write below the one prefix where the UI looks. What one writes over of another's stays as a version, which
# no role may delete.
resource "aws_s3_bucket_versioning" "compute_logs" {
  for_each = local.log_buckets

  bucket = aws_s3_bucket.compute_logs[each.value].id

  versioning_configuration {
    status = "Enabled"
  }
}

# As long as Dagster keeps the runs themselves. A run that is at work writes its log again every 30 s: these versions go
# after three days.
resource "aws_s3_bucket_lifecycle_configuration" "compute_logs" {
  for_each = local.log_buckets

  bucket = aws_s3_bucket.compute_logs[each.value].id

  rule {
    id     = "compute-logs"
    status = "Enabled"

    filter {
      prefix = "compute-logs/"
    }

    expiration {
      days = local.generated.run_retention_days
    }

    noncurrent_version_expiration {
      noncurrent_days = 3
    }
  }
}
