# Private. Every version of an object is kept, except where a lifecycle rule expires it.
resource "aws_s3_bucket" "artefacts" {
  bucket = local.generated.bucket
}

resource "aws_s3_bucket_versioning" "artefacts" {
  bucket = aws_s3_bucket.artefacts.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_public_access_block" "artefacts" {
  bucket                  = aws_s3_bucket.artefacts.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_server_side_encryption_configuration" "artefacts" {
  bucket = aws_s3_bucket.artefacts.id

  rule {
    bucket_key_enabled = true

    apply_server_side_encryption_by_default {
      sse_algorithm     = local.key == null ? "AES256" : "aws:kms"
      kms_master_key_id = local.key
    }
  }
}

# TLS only; files of draws are written once and never deleted.
resource "aws_s3_bucket_policy" "artefacts" {
  bucket = aws_s3_bucket.artefacts.id
  policy = jsonencode(local.generated.bucket_policy)
}

# No default retention, which would hold uploads and the archive, too: the draw locks each of its own files
# (selection.drawLockDays).
resource "aws_s3_bucket_object_lock_configuration" "artefacts" {
  bucket              = aws_s3_bucket_versioning.artefacts.bucket
  object_lock_enabled = "Enabled"
}

resource "aws_s3_bucket_lifecycle_configuration" "artefacts" {
  bucket = aws_s3_bucket.artefacts.id

  dynamic "rule" {
    for_each = local.generated.lifecycles

    content {
      id     = rule.key
      status = "Enabled"

      filter {
        prefix = rule.value.prefix
      }

      dynamic "abort_incomplete_multipart_upload" {
        for_each = rule.value.abort_days

        content {
          days_after_initiation = abort_incomplete_multipart_upload.value
        }
      }

      dynamic "noncurrent_version_expiration" {
        for_each = rule.value.replaced_days

        content {
          noncurrent_days = noncurrent_version_expiration.value
        }
      }

      dynamic "expiration" {
        for_each = rule.value.expire_days

        content {
          days = expiration.value
        }
      }
    }
  }
}
