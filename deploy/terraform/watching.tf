resource "aws_cloudwatch_dashboard" "overview" {
  dashboard_name = local.generated.dashboard_name
  dashboard_body = jsonencode(local.generated.dashboard)
}

resource "aws_cloudwatch_metric_alarm" "all" {
  for_each = local.generated.alarms

  alarm_name          = each.key
  alarm_description   = each.value.description
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = each.value.statistic
  period              = each.value.period
  evaluation_periods  = each.value.evaluation_periods
  threshold           = each.value.threshold
  comparison_operator = each.value.comparison
  treat_missing_data  = each.value.missing
  alarm_actions       = var.alarm_topics
  ok_actions          = var.alarm_topics
}
