# checkEligibility: the function that fans ask. `make lambda` builds its package, which is too large for a direct upload.
locals {
  function  = local.generated.function
  functions = toset(var.eligibility_package == "" ? [] : [local.generated.function.name])
}

resource "aws_iam_role" "eligibility" {
  for_each = local.functions

  name = "${local.prefix}regworkers-eligibility"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "lambda.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role_policy_attachment" "eligibility" {
  for_each = local.functions

  role       = aws_iam_role.eligibility[each.value].name
  policy_arn = aws_iam_policy.role[local.function.policy].arn
}

# Network interfaces in the subnets, and log lines.
resource "aws_iam_role_policy_attachment" "eligibility_network" {
  for_each = local.functions

  role       = aws_iam_role.eligibility[each.value].name
  policy_arn = "arn:aws:iam::aws:policy/service-role/${local.function.network_policy}"
}

resource "aws_s3_object" "eligibility" {
  for_each = local.functions

  bucket      = aws_s3_bucket.artefacts.id
  key         = "lambda/eligibility.zip"
  source      = var.eligibility_package
  source_hash = filemd5(var.eligibility_package)
}

resource "aws_lambda_function" "eligibility" {
  for_each = local.functions

  function_name     = each.value
  role              = aws_iam_role.eligibility[each.value].arn
  handler           = local.function.handler
  runtime           = local.function.runtime
  architectures     = ["x86_64"]
  timeout           = local.function.timeout_seconds
  memory_size       = var.eligibility_memory
  s3_bucket         = aws_s3_object.eligibility[each.value].bucket
  s3_key            = aws_s3_object.eligibility[each.value].key
  s3_object_version = aws_s3_object.eligibility[each.value].version_id
  publish           = true
  kms_key_arn       = local.key
  # At most as many at once as MongoDB and the services bear; -1: no limit of its own.
  reserved_concurrent_executions = var.eligibility_concurrency

  vpc_config {
    subnet_ids         = var.eligibility_subnets
    security_group_ids = var.eligibility_security_groups
  }

  environment {
    variables = merge(local.function.environment, var.eligibility_environment)
  }

  # The workers' log group, where `regworkers logs` and the saved queries look.
  logging_config {
    log_format = "JSON"
    log_group  = aws_cloudwatch_log_group.workers.name
  }

  tracing_config {
    mode = "PassThrough"
  }
}

# What callers invoke: it moves to a new version only when that exists.
resource "aws_lambda_alias" "live" {
  for_each = local.functions

  name             = local.function.alias
  function_name    = aws_lambda_function.eligibility[each.value].function_name
  function_version = aws_lambda_function.eligibility[each.value].version
}

# Processes that are prepared before the first fan asks. 0: none.
resource "aws_lambda_provisioned_concurrency_config" "live" {
  for_each = var.eligibility_provisioned == 0 ? toset([]) : local.functions

  function_name                     = aws_lambda_alias.live[each.value].function_name
  qualifier                         = aws_lambda_alias.live[each.value].name
  provisioned_concurrent_executions = var.eligibility_provisioned
}
