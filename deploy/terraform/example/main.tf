terraform {
  required_version = ">= 1.5"

  # Keep the state where others find it, and few may read it:
  # backend "gcs" {
  #   bucket = "my-project-123-terraform"
  #   prefix = "posthog-etl"
  # }
}

provider "google" {
  project = var.project_id
  region  = var.region
}

module "posthog_etl" {
  source = "../module"

  project_id        = var.project_id
  region            = var.region
  bigquery_location = var.bigquery_location
  secret_name       = var.secret_name
  concurrency       = var.concurrency
  invokers          = var.invokers
  alert_emails      = var.alert_emails
  settings          = var.settings
  job_settings      = var.job_settings
}
