# The redrive policy is for workers that die. The workers themselves dead-letter long before.
resource "aws_sqs_queue" "dead" {
  for_each = local.generated.dead_letter_queues

  name                      = "${local.prefix}${each.key}"
  message_retention_seconds = each.value
}

resource "aws_sqs_queue" "work" {
  for_each = local.generated.queues

  name                       = "${local.prefix}${each.key}"
  message_retention_seconds  = each.value.retention_seconds
  visibility_timeout_seconds = each.value.visibility_seconds

  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead[each.value.dead_letter_queue].arn
    maxReceiveCount     = each.value.max_receives
  })
}
