# Project, region and labels.

variable "project_id" {
  description = "Project of the datasets, of the service and of everything else."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project_id))
    error_message = "project_id must be a project id like my-project-123, not a name or a number."
  }
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

variable "labels" {
  description = "Labels on everything that can carry them."
  type        = map(string)
  default     = { app = "posthog-etl" }
}

# Data.

variable "posthog_dataset_id" {
  description = "Dataset of PostHog's batch export. It must exist."
  type        = string
  default     = "posthog_etl"
}

variable "firebase_dataset_id" {
  description = "Dataset of the app's users and of what they created. It must exist."
  type        = string
  default     = "firebase_etl_prod"
}

variable "aggregated_dataset_id" {
  description = "Dataset that the service writes. The module makes it."
  type        = string
  default     = "posthog_aggregated"
}

variable "jobs_file" {
  description = "File that says when each job runs and how large it is; null: config/jobs.yaml of this repository."
  type        = string
  default     = null
}

variable "claude_dataset_id" {
  description = "Dataset that the job claude_usage writes. The module makes it where the job is deployed."
  type        = string
  default     = "ai_usage_analytics"
}

variable "dog_dataset_id" {
  description = "Dataset that the job dog_breeds writes. The module makes it where the job is deployed."
  type        = string
  default     = "dog_breeds_raw"
}

variable "job_settings" {
  description = "Further settings of each job besides sessions, by job and name, like ANTHROPIC_ORGANIZATION_ID of claude_usage. No secrets."
  type        = map(map(string))
  default     = {}
}

variable "job_secrets" {
  description = "Secrets of each job besides sessions: by job, which variable gets the value of which secret. Made empty: add the values yourself."
  type        = map(map(string))
  default = {
    claude_usage = { ANTHROPIC_ADMIN_API_KEY = "anthropic-admin-api-key" }
    tmdb_changes = { TMDB_READ_TOKEN = "tmdb-read-token", REDIS_PASSWORD = "redis-password" }
  }
}

variable "session_retention_days" {
  description = "Days after which partitions of sessions expire; null keeps them. Counts for tables made after it was set."
  type        = number
  default     = null

  validation {
    condition     = var.session_retention_days == null ? true : var.session_retention_days >= 1
    error_message = "session_retention_days must be a number of days, at least 1, or null."
  }
}

variable "time_travel_hours" {
  description = "Hours for which BigQuery can bring deleted rows back: 48 to 168."
  type        = number
  default     = 168

  validation {
    condition     = var.time_travel_hours >= 48 && var.time_travel_hours <= 168 && var.time_travel_hours % 24 == 0
    error_message = "time_travel_hours must be a multiple of 24 from 48 to 168."
  }
}

variable "secret_name" {
  description = "Secret for a service-account key, made empty: add the key yourself. Empty: no key, the runner's own account reads and writes."
  type        = string
  default     = "bigquery-key"

  validation {
    condition     = can(regex("^[A-Za-z0-9_-]{0,255}$", var.secret_name))
    error_message = "secret_name must be the short name of a secret, or empty."
  }
}

# The service and the job.

variable "image" {
  description = "Image to start with; null: Google's placeholder, until Cloud Build deploys. Later changes are Cloud Build's alone."
  type        = string
  default     = null
}

variable "concurrency" {
  description = "Requests that the one instance takes at a time. With 4, GET /status answers during a run; the lease still admits one run."
  type        = number
  default     = 1

  validation {
    condition     = var.concurrency >= 1 && var.concurrency <= 8
    error_message = "concurrency must be 1 to 8: the service has eight threads."
  }
}

variable "timeout_seconds" {
  description = "Seconds that Cloud Run lets a request take, 3600 at most. ETL_TIMEOUT_SECONDS must be less."
  type        = number
  default     = 3600

  validation {
    condition     = var.timeout_seconds >= 60 && var.timeout_seconds <= 3600
    error_message = "timeout_seconds must be 60 to 3600."
  }
}

variable "job_lease_wait_seconds" {
  description = "Seconds that the job waits for another run to end, instead of failing at once."
  type        = number
  default     = 3600

  validation {
    condition     = var.job_lease_wait_seconds >= 0 && var.job_lease_wait_seconds <= 3600
    error_message = "job_lease_wait_seconds must be 0 to 3600."
  }
}

variable "ingress" {
  description = "From where the service can be reached. Callers need a role in any case."
  type        = string
  default     = "INGRESS_TRAFFIC_ALL"

  validation {
    condition     = contains(["INGRESS_TRAFFIC_ALL", "INGRESS_TRAFFIC_INTERNAL_ONLY", "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER"], var.ingress)
    error_message = "ingress must be one of Cloud Run's three values."
  }
}

variable "invokers" {
  description = "Who may call the service besides the schedule, like group:data@example.com."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for member in var.invokers : !contains(["allUsers", "allAuthenticatedUsers"], member)])
    error_message = "invokers must not hold allUsers or allAuthenticatedUsers: the service is private."
  }
}

variable "settings" {
  description = "Further settings of the service and the job, by name: see docs/reference.md. No secrets: they would be in the state."
  type        = map(string)
  default     = {}

  validation {
    condition     = !contains(keys(var.settings), "ETL_API_KEY")
    error_message = "ETL_API_KEY is a secret: put it into Secret Manager and name it in api_key_secret."
  }
}

variable "api_key_secret" {
  description = "Existing secret that holds ETL_API_KEY, for AUTH=api_key; null: none."
  type        = string
  default     = null
}

variable "deletion_protection" {
  description = "Whether Terraform refuses to delete the service and the job."
  type        = bool
  default     = true
}

# The schedule.

variable "weekly_full_load_schedule" {
  description = "When a weekly full load starts, like 0 4 * * 0; null: never."
  type        = string
  default     = null
}

variable "weekly_verify_schedule" {
  description = "When 20 stored sessions are verified, like 0 6 * * 1; null: never."
  type        = string
  default     = null
}

variable "attempt_deadline_seconds" {
  description = "Seconds that Cloud Scheduler waits for an answer, 1800 at most."
  type        = number
  default     = 1800

  validation {
    condition     = var.attempt_deadline_seconds >= 15 && var.attempt_deadline_seconds <= 1800
    error_message = "attempt_deadline_seconds must be 15 to 1800."
  }
}

variable "start_paused" {
  description = "Whether schedules are made paused. Later only gcloud and the console pause and resume them."
  type        = bool
  default     = true
}

# Alerts.

variable "alert_emails" {
  description = "Addresses that alerts are sent to."
  type        = set(string)
  default     = []
}

variable "notification_channels" {
  description = "Further notification channels that exist, as projects/PROJECT/notificationChannels/ID."
  type        = list(string)
  default     = []
}
