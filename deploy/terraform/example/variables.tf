# The module's other variables have defaults that suit most: see ../README.md.

variable "project_id" {
  description = "Project of the datasets, of the service and of everything else."
  type        = string
}

variable "region" {
  description = "Region of the service, the job, the schedule and the registry."
  type        = string
  default     = "us-central1"
}

variable "bigquery_location" {
  description = "Location of all three datasets: that of the source datasets."
  type        = string
  default     = "US"
}

variable "secret_name" {
  description = "Secret for a service-account key; empty: no key."
  type        = string
  default     = "bigquery-key"
}

variable "concurrency" {
  description = "Requests that the one instance takes at a time."
  type        = number
  default     = 1
}

variable "invokers" {
  description = "Who may call the service besides the schedule."
  type        = set(string)
  default     = []
}

variable "alert_emails" {
  description = "Addresses that alerts are sent to."
  type        = set(string)
  default     = []
}

variable "settings" {
  description = "Further settings of the service and the job, by name."
  type        = map(string)
  default     = {}
}

variable "job_settings" {
  description = "Further settings of each job besides sessions, by job and name."
  type        = map(map(string))
  default     = {}
}
