# Names, APIs, and the settings of the service and the job.

locals {
  # When each job runs and how large it is. `sessions` is the service and the job of this name; each
  # other one that is deployed is a Cloud Run job with an account of its own, or runs in the service.
  jobs       = yamldecode(file(coalesce(var.jobs_file, "${path.module}/../../../config/jobs.yaml")))
  sessions   = local.jobs["sessions"]
  other_jobs = { for name, job in local.jobs : name => merge(job, { slug = replace(name, "_", "-") }) if name != "sessions" && job.deployed }
  own_jobs   = { for name, job in local.other_jobs : name => job if job.mode == "job" }
  guest_jobs = { for name, job in local.other_jobs : name => job if job.mode == "service" }

  # Which setting names the dataset of a job's own.
  dataset_ids = {
    claude_usage = { CLAUDE_DATASET_ID = var.claude_dataset_id }
    dog_breeds   = { DOG_DATASET_ID = var.dog_dataset_id }
  }
  job_datasets = merge({}, [for name in keys(local.other_jobs) : { for id in values(lookup(local.dataset_ids, name, {})) : id => name }]...)
  job_secrets  = merge({}, [for name in keys(local.other_jobs) : { for id in values(lookup(var.job_secrets, name, {})) : id => name }]...)

  service_name  = "posthog-etl"
  job_name      = "posthog-etl-job"
  schedule_name = "posthog-etl-trigger"
  weekly_name   = "posthog-etl-weekly-full-load"
  verify_name   = "posthog-etl-weekly-verify"
  has_weekly    = var.weekly_full_load_schedule != null || var.weekly_verify_schedule != null

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
  environment = merge(var.settings, local.guest_environment, {
    GOOGLE_CLOUD_PROJECT_ID       = var.project_id
    POSTHOG_DATASET_ID            = var.posthog_dataset_id
    FIREBASE_DATASET_ID           = var.firebase_dataset_id
    POSTHOG_AGGREGATED_DATASET_ID = google_bigquery_dataset.aggregated.dataset_id
    BIGQUERY_LOCATION             = var.bigquery_location
    BIGQUERY_SECRET_NAME          = var.secret_name # empty is a value: no key
  })

  job_timeout_seconds = local.sessions.timeout_minutes * 60
  job_environment = merge(local.environment, {
    ETL_TIMEOUT_SECONDS = tostring(local.job_timeout_seconds - 300)
    LEASE_WAIT_SECONDS  = tostring(var.job_lease_wait_seconds)
  })

  service_secrets    = var.api_key_secret == null ? {} : { ETL_API_KEY = var.api_key_secret }
  guest_secrets      = merge({}, [for name in keys(local.guest_jobs) : lookup(var.job_secrets, name, {})]...)
  secret_environment = merge(local.service_secrets, local.guest_secrets)

  # The service has the settings of the jobs that it runs.
  guest_environment = merge({}, [for name in keys(local.guest_jobs) : local.settings_of[name]]...)
  settings_of = {
    for name in keys(local.other_jobs) : name => merge(lookup(local.dataset_ids, name, {}), lookup(var.job_settings, name, {}))
  }

  # A Cloud Run job of its own is told where BigQuery is, and that its account has no key.
  own_environment = {
    for name, job in local.own_jobs : name => merge(local.settings_of[name], {
      GOOGLE_CLOUD_PROJECT_ID       = var.project_id
      POSTHOG_AGGREGATED_DATASET_ID = var.aggregated_dataset_id
      BIGQUERY_LOCATION             = var.bigquery_location
      BIGQUERY_SECRET_NAME          = ""
      ETL_TIMEOUT_SECONDS           = tostring(job.timeout_minutes * 60 - 300)
    })
  }
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
