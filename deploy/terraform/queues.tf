# The redrive policy is for workers that die; the workers' own classification dead-letters long before.
locals {
  queues = {
    "replication-queue"  = { days = 4, max_receives = 100 }
    "selection-queue"    = { days = 4, max_receives = 100 }
    "notification-queue" = { days = 4, max_receives = 100 }
    "analytics-queue"    = { days = 14, max_receives = 1000 }
  }
}

resource "aws_sqs_queue" "dead" {
  for_each = local.queues

  name                      = "${local.prefix}${each.key}-dlq"
  message_retention_seconds = 14 * local.day
}

resource "aws_sqs_queue" "work" {
  for_each = local.queues

  name                       = "${local.prefix}${each.key}"
  message_retention_seconds  = each.value.days * local.day
  visibility_timeout_seconds = local.generated.visibility_seconds

  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead[each.key].arn
    maxReceiveCount     = each.value.max_receives
  })
}
