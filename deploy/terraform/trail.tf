# Who wrote or deleted files of draws and the ledger of erasures. Management events (policies, roles, tables, secrets) are
# in the account's own trail. Calls on the tables are not recorded: each registration would cost two events.
resource "aws_cloudtrail" "files" {
  for_each = toset(var.trail_bucket == "" ? [] : ["files"])

  name                          = "${local.prefix}regworkers-files"
  s3_bucket_name                = var.trail_bucket
  enable_log_file_validation    = true
  include_global_service_events = false

  advanced_event_selector {
    name = "Writes below draws/, erasures/ and log/"

    field_selector {
      field  = "eventCategory"
      equals = ["Data"]
    }

    field_selector {
      field  = "resources.type"
      equals = ["AWS::S3::Object"]
    }

    field_selector {
      field  = "readOnly"
      equals = ["false"]
    }

    field_selector {
      field = "resources.ARN"
      starts_with = [
        "arn:aws:s3:::${local.generated.bucket}/draws/",
        "arn:aws:s3:::${local.generated.bucket}/erasures/",
        "arn:aws:s3:::${local.generated.bucket}/log/",
      ]
    }
  }
}
