# Private, and every version of an object is kept, but for those that a rule below lets go.
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

resource "aws_s3_bucket_lifecycle_configuration" "artefacts" {
  bucket = aws_s3_bucket.artefacts.id

  # What a dead run left.
  rule {
    id     = "everything"
    status = "Enabled"

    filter {
      prefix = ""
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }

  # The archive replaces its small files all the time.
  rule {
    id     = "archive"
    status = "Enabled"

    filter {
      prefix = "archive/"
    }

    noncurrent_version_expiration {
      noncurrent_days = 30
    }
  }

  # Files of a draw that prove nothing; housekeeping deletes them once their period is over.
  rule {
    id     = "pipeline"
    status = "Enabled"

    filter {
      prefix = "pipeline/"
    }

    noncurrent_version_expiration {
      noncurrent_days = 30
    }
  }

  # What people hand in and fetch through the UI may hold fans' data.
  rule {
    id     = "uploads"
    status = "Enabled"

    filter {
      prefix = "uploads/"
    }

    expiration {
      days = 1
    }

    noncurrent_version_expiration {
      noncurrent_days = 1
    }
  }

  rule {
    id     = "downloads"
    status = "Enabled"

    filter {
      prefix = "downloads/"
    }

    expiration {
      days = 1
    }

    noncurrent_version_expiration {
      noncurrent_days = 1
    }
  }
}
