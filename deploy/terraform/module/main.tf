# Names, APIs, and what the service and the job are told.

locals {
  service_name  = "posthog-etl"
  job_name      = "posthog-etl-job"
  schedule_name = "posthog-etl-trigger"
  weekly_name   = "posthog-etl-weekly-full-load"

  image_path  = "${var.region}-docker.pkg.dev/${var.project_id}/${google_artifact_registry_repository.images.repository_id}/${local.service_name}"
  placeholder = "us-docker.pkg.dev/cloudrun/container"

  # By the first part of a region, or one of BigQuery's multi-regions.
  continents = {
    us           = "america"
    northamerica = "america"
    eu           = "europe"
    europe       = "europe"
    southamerica = "southamerica"
    asia         = "asia"
    australia    = "australia"
    me           = "me"
    africa       = "africa"
  }

  # The same for the service and the job. Every name is a setting of docs/reference.md.
  environment = merge(var.settings, {
    GOOGLE_CLOUD_PROJECT_ID       = var.project_id
    POSTHOG_DATASET_ID            = var.posthog_dataset_id
    FIREBASE_DATASET_ID           = var.firebase_dataset_id
    POSTHOG_AGGREGATED_DATASET_ID = google_bigquery_dataset.aggregated.dataset_id
    BIGQUERY_LOCATION             = var.bigquery_location
    BIGQUERY_SECRET_NAME          = var.secret_name # empty is a value: no key
  })

  job_environment = merge(local.environment, {
    ETL_TIMEOUT_SECONDS = tostring(var.job_timeout_seconds - 300)
    LEASE_WAIT_SECONDS  = tostring(var.job_lease_wait_seconds)
  })

  secret_environment = var.api_key_secret == null ? {} : { ETL_API_KEY = var.api_key_secret }
}

resource "google_project_service" "apis" {
  for_each = toset([
    "artifactregistry.googleapis.com",
    "bigquery.googleapis.com",
    "bigquerystorage.googleapis.com",
    "cloudbuild.googleapis.com",
    "cloudscheduler.googleapis.com",
    "iam.googleapis.com",
    "iamcredentials.googleapis.com",
    "logging.googleapis.com",
    "monitoring.googleapis.com",
    "run.googleapis.com",
    "secretmanager.googleapis.com",
  ])

  project            = var.project_id
  service            = each.key
  disable_on_destroy = false # others in the project may use it
}
