# The redrive policy is for workers that die. The workers themselves dead-letter long before.
resource "aws_sqs_queue" "dead" {
  for_each = local.generated.dead_letter_queues

  name                      = "${local.prefix}${each.key}"
  message_retention_seconds = each.value.retention_seconds
  max_message_size          = each.value.max_message_bytes
  kms_master_key_id         = local.key
  sqs_managed_sse_enabled   = local.key == null ? true : null
}

resource "aws_sqs_queue" "work" {
  for_each = local.generated.queues

  name                       = "${local.prefix}${each.key}"
  message_retention_seconds  = each.value.retention_seconds
  visibility_timeout_seconds = each.value.visibility_seconds
  max_message_size           = each.value.max_message_bytes
  kms_master_key_id          = local.key
  sqs_managed_sse_enabled    = local.key == null ? true : null

  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead[each.value.dead_letter_queue].arn
    maxReceiveCount     = each.value.max_receives
  })
}
