# The accounts and their roles: three accounts, and one for each Cloud Run job of a further job, each with
# no more than it needs.

resource "google_service_account" "runner" {
  project      = var.project_id
  account_id   = "etl-runner"
  display_name = "Runs the ETL service and job"

  depends_on = [google_project_service.apis]
}

resource "google_service_account" "scheduler" {
  project      = var.project_id
  account_id   = "scheduler-invoker"
  display_name = "Starts the nightly ETL run"

  depends_on = [google_project_service.apis]
}

resource "google_service_account" "build" {
  project      = var.project_id
  account_id   = "cloud-build-user-sa"
  display_name = "Builds and deploys the ETL image"

  depends_on = [google_project_service.apis]
}

# The runner. Where a key is used, the key's account needs the BigQuery roles instead.

resource "google_project_iam_member" "runner" {
  for_each = toset([
    "roles/bigquery.jobUser",         # run queries and load jobs
    "roles/bigquery.readSessionUser", # download results by the Storage Read API
  ])

  project = var.project_id
  role    = each.key
  member  = google_service_account.runner.member
}

resource "google_bigquery_dataset_iam_member" "sources" {
  for_each = toset([var.posthog_dataset_id, var.firebase_dataset_id])

  project    = var.project_id
  dataset_id = each.key
  role       = "roles/bigquery.dataViewer"
  member     = google_service_account.runner.member
}

resource "google_bigquery_dataset_iam_member" "destination" {
  project    = var.project_id
  dataset_id = google_bigquery_dataset.aggregated.dataset_id
  role       = "roles/bigquery.dataEditor"
  member     = google_service_account.runner.member
}

resource "google_secret_manager_secret_iam_member" "key" {
  count = var.secret_name == "" ? 0 : 1

  project   = var.project_id
  secret_id = google_secret_manager_secret.key[0].secret_id
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.runner.member
}

resource "google_secret_manager_secret_iam_member" "api_key" {
  count = var.api_key_secret == null ? 0 : 1

  project   = var.project_id
  secret_id = var.api_key_secret
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.runner.member
}

# The schedule, and the people who may call the service.

resource "google_cloud_run_v2_service_iam_member" "scheduler" {
  count = local.sessions.mode == "service" || length(local.guest_jobs) > 0 ? 1 : 0

  project  = var.project_id
  location = var.region
  name     = google_cloud_run_v2_service.etl.name
  role     = "roles/run.invoker"
  member   = google_service_account.scheduler.member
}

resource "google_cloud_run_v2_service_iam_member" "invokers" {
  for_each = var.invokers

  project  = var.project_id
  location = var.region
  name     = google_cloud_run_v2_service.etl.name
  role     = "roles/run.invoker"
  member   = each.key
}

resource "google_cloud_run_v2_job_iam_member" "scheduler" {
  count = local.sessions.mode == "job" || var.weekly_verify_schedule != null ? 1 : 0

  project  = var.project_id
  location = var.region
  name     = google_cloud_run_v2_job.etl.name
  # The weekly schedules give the job other arguments: an override, which run.invoker may not.
  role   = local.has_weekly ? "roles/run.jobsExecutorWithOverrides" : "roles/run.invoker"
  member = google_service_account.scheduler.member
}

# The build.

resource "google_project_iam_member" "build_logs" {
  project = var.project_id
  role    = "roles/logging.logWriter"
  member  = google_service_account.build.member
}

resource "google_artifact_registry_repository_iam_member" "build" {
  project    = var.project_id
  location   = var.region
  repository = google_artifact_registry_repository.images.repository_id
  role       = "roles/artifactregistry.writer"
  member     = google_service_account.build.member
}

resource "google_storage_bucket_iam_member" "build" {
  bucket = google_storage_bucket.builds.name
  role   = "roles/storage.objectViewer"
  member = google_service_account.build.member
}

resource "google_cloud_run_v2_service_iam_member" "build" {
  for_each = toset([
    "roles/run.developer", # deploy a revision and give it traffic
    "roles/run.invoker",   # ask it for /health before
  ])

  project  = var.project_id
  location = var.region
  name     = google_cloud_run_v2_service.etl.name
  role     = each.key
  member   = google_service_account.build.member
}

resource "google_cloud_run_v2_job_iam_member" "build" {
  project  = var.project_id
  location = var.region
  name     = google_cloud_run_v2_job.etl.name
  role     = "roles/run.developer"
  member   = google_service_account.build.member
}

# To deploy what runs as the runner.
resource "google_service_account_iam_member" "build_acts_as_runner" {
  service_account_id = google_service_account.runner.name
  role               = "roles/iam.serviceAccountUser"
  member             = google_service_account.build.member
}

# On itself: an identity token, to ask a new revision for /health.
resource "google_service_account_iam_member" "build_identity" {
  service_account_id = google_service_account.build.name
  role               = "roles/iam.serviceAccountOpenIdTokenCreator"
  member             = google_service_account.build.member
}

# The other jobs. Each may query, write its own dataset, read its own secrets, and keep its lease, its row
# of the ledger and its staging tables in the destination.

resource "google_service_account" "jobs" {
  for_each = local.own_jobs

  project      = var.project_id
  account_id   = "etl-${each.value.slug}"
  display_name = "Runs the ETL job ${each.key}"

  depends_on = [google_project_service.apis]
}

resource "google_project_iam_member" "jobs" {
  for_each = local.own_jobs

  project = var.project_id
  role    = "roles/bigquery.jobUser"
  member  = google_service_account.jobs[each.key].member
}

resource "google_bigquery_dataset_iam_member" "jobs_ledger" {
  for_each = local.own_jobs

  project    = var.project_id
  dataset_id = google_bigquery_dataset.aggregated.dataset_id
  role       = "roles/bigquery.dataEditor"
  member     = google_service_account.jobs[each.key].member
}

resource "google_bigquery_dataset_iam_member" "jobs" {
  for_each = local.job_datasets

  project    = var.project_id
  dataset_id = google_bigquery_dataset.jobs[each.key].dataset_id
  role       = "roles/bigquery.dataEditor"
  member     = contains(keys(local.own_jobs), each.value) ? google_service_account.jobs[each.value].member : google_service_account.runner.member
}

resource "google_secret_manager_secret_iam_member" "jobs" {
  for_each = local.job_secrets

  project   = var.project_id
  secret_id = google_secret_manager_secret.jobs[each.key].secret_id
  role      = "roles/secretmanager.secretAccessor"
  member    = contains(keys(local.own_jobs), each.value) ? google_service_account.jobs[each.value].member : google_service_account.runner.member
}

resource "google_cloud_run_v2_job_iam_member" "jobs_scheduler" {
  for_each = local.own_jobs

  project  = var.project_id
  location = var.region
  name     = google_cloud_run_v2_job.jobs[each.key].name
  role     = "roles/run.invoker"
  member   = google_service_account.scheduler.member
}

resource "google_cloud_run_v2_job_iam_member" "jobs_build" {
  for_each = local.own_jobs

  project  = var.project_id
  location = var.region
  name     = google_cloud_run_v2_job.jobs[each.key].name
  role     = "roles/run.developer"
  member   = google_service_account.build.member
}

resource "google_service_account_iam_member" "build_acts_as_jobs" {
  for_each = local.own_jobs

  service_account_id = google_service_account.jobs[each.key].name
  role               = "roles/iam.serviceAccountUser"
  member             = google_service_account.build.member
}
