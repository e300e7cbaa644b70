variable "environment" {
  description = "The environment (qa, preprod or prod), which selects configs/<environment>.config.yml."
  type        = string

  validation {
    condition     = contains(["qa", "preprod", "prod"], var.environment)
    error_message = "One of qa, preprod, prod."
  }
}

variable "account" {
  description = "Number of the AWS account, 12 digits."
  type        = string
}

variable "log_bucket" {
  description = "Bucket of Dagster's compute logs, which exists already (REGWORKERS_LOG_BUCKET)."
  type        = string
}

variable "critical_alarm_topics" {
  description = "ARNs of the SNS topics that critical alarms notify: those that page the engineer on call."
  type        = list(string)
  default     = []
}

variable "warning_alarm_topics" {
  description = "ARNs of the SNS topics that all other alarms notify."
  type        = list(string)
  default     = []
}

variable "oidc_provider" {
  description = "The cluster's identity provider without https://, as its service accounts' tokens name it."
  type        = string
}

variable "kubernetes_namespace" {
  description = "Namespace of the service accounts regworkers-sensors and regworkers-run."
  type        = string
  default     = "regworkers"
}
