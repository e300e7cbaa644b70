# One for each role, with the rights of all its workers. A managed policy has at most 6,144 characters.
moved {
  from = aws_iam_policy.worker
  to   = aws_iam_policy.role
}

resource "aws_iam_policy" "role" {
  for_each = local.generated.policies

  name = "${local.prefix}regworkers-${each.key}"
  policy = replace(replace(replace(replace(
    jsonencode(each.value),
    "LOG_BUCKET", var.log_bucket),
    "PREFIX", local.prefix),
    "REGION", local.generated.region),
  "ACCOUNT", var.account)
}

# The function's role is in eligibility.tf; people and other programs bring roles of their own.
resource "aws_iam_role" "service_account" {
  for_each = toset(local.generated.roles)

  name = "${local.prefix}regworkers-${each.value}"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRoleWithWebIdentity"
      Principal = { Federated = "arn:aws:iam::${var.account}:oidc-provider/${var.oidc_provider}" }
      Condition = {
        StringEquals = {
          "${var.oidc_provider}:aud" = "sts.amazonaws.com"
          "${var.oidc_provider}:sub" = "system:serviceaccount:${var.kubernetes_namespace}:regworkers-${each.value}"
        }
      }
    }]
  })
}

resource "aws_iam_role_policy_attachment" "service_account" {
  for_each = toset(local.generated.roles)

  role       = aws_iam_role.service_account[each.value].name
  policy_arn = aws_iam_policy.role["role-${each.value}"].arn
}
