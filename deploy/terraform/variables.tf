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
  description = "Bucket of Dagster's compute logs (REGWORKERS_LOG_BUCKET)."
  type        = string
}

variable "manage_log_bucket" {
  description = "Whether this module creates that bucket. Import one that exists, or set false."
  type        = bool
  default     = true
}

variable "own_key" {
  description = "Whether a KMS key of this account encrypts tables, queues, buckets and logs."
  type        = bool
  default     = false
}

variable "trail_bucket" {
  description = "Bucket whose policy lets CloudTrail write to it, for a record of all writes to files of draws. Empty: no trail."
  type        = string
  default     = ""
}

variable "eligibility_package" {
  description = "Path of build/lambda/eligibility.zip, which `make lambda` writes. Empty: no function."
  type        = string
  default     = ""
}

variable "eligibility_environment" {
  description = "Variables of the function besides its own, without secrets: such as REGWORKERS_REDIS__URL without a password."
  type        = map(string)
  default     = {}
}

variable "eligibility_subnets" {
  description = "Subnets of the function, from which MongoDB, Redis and the services are reached."
  type        = list(string)
  default     = []
}

variable "eligibility_security_groups" {
  description = "Security groups of the function."
  type        = list(string)
  default     = []
}

variable "eligibility_memory" {
  description = "Memory of the function in MiB. Lambda gives CPU in proportion; 1769 are one core."
  type        = number
  default     = 1769
}

variable "eligibility_concurrency" {
  description = "How many processes of the function may run at once. -1: as many as the account may."
  type        = number
  default     = -1
}

variable "eligibility_provisioned" {
  description = "How many processes are prepared ahead: raise it before a registration opens."
  type        = number
  default     = 0
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
  description = "Namespace of the service accounts in ../kubernetes/service-accounts.yaml."
  type        = string
  default     = "regworkers"
}
