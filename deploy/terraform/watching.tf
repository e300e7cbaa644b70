resource "aws_cloudwatch_dashboard" "overview" {
  dashboard_name = local.generated.dashboard_name
  dashboard_body = jsonencode(local.generated.dashboard)
}

locals {
  # By the severity that the settings give the condition (alerts.severity).
  alarm_topics = {
    critical = var.critical_alarm_topics
    warning  = var.warning_alarm_topics
  }
}

resource "aws_cloudwatch_metric_alarm" "all" {
  for_each = local.generated.alarms

  alarm_name          = each.key
  alarm_description   = each.value.description
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = each.value.statistic
  extended_statistic  = each.value.extended_statistic
  period              = each.value.period
  evaluation_periods  = each.value.evaluation_periods
  threshold           = each.value.threshold
  comparison_operator = each.value.comparison
  treat_missing_data  = each.value.missing
  alarm_actions       = local.alarm_topics[each.value.severity]
  ok_actions          = local.alarm_topics[each.value.severity]
}

resource "aws_cloudwatch_query_definition" "all" {
  for_each = local.generated.queries

  name            = each.key
  query_string    = each.value
  log_group_names = [aws_cloudwatch_log_group.workers.name]
}
