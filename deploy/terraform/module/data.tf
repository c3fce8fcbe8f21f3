# What is kept: the destination dataset, the key's container, the images, the source of builds.

resource "google_bigquery_dataset" "aggregated" {
  project                         = var.project_id
  dataset_id                      = var.aggregated_dataset_id
  location                        = var.bigquery_location
  description                     = "One row per session and what follows from it, written by posthog-etl."
  max_time_travel_hours           = tostring(var.time_travel_hours)
  default_partition_expiration_ms = var.session_retention_days == null ? null : var.session_retention_days * 24 * 3600 * 1000
  delete_contents_on_destroy      = false
  labels                          = var.labels

  lifecycle {
    precondition {
      condition     = local.continents[split("-", lower(var.region))[0]] == local.continents[split("-", lower(var.bigquery_location))[0]]
      error_message = "region must be on the continent of bigquery_location: people's data would leave it."
    }
  }

  depends_on = [google_project_service.apis]
}

# The container only. Its value never passes through Terraform, whose state would keep it.
resource "google_secret_manager_secret" "key" {
  count = var.secret_name == "" ? 0 : 1

  project   = var.project_id
  secret_id = var.secret_name
  labels    = var.labels

  replication {
    auto {}
  }

  depends_on = [google_project_service.apis]
}

resource "google_artifact_registry_repository" "images" {
  project       = var.project_id
  location      = var.region
  repository_id = "posthog-etl"
  format        = "DOCKER"
  description   = "Images of posthog-etl."
  labels        = var.labels

  # Twenty images to roll back to; older ones go after a month.
  cleanup_policies {
    id     = "keep-recent"
    action = "KEEP"

    most_recent_versions {
      keep_count = 20
    }
  }

  cleanup_policies {
    id     = "delete-old"
    action = "DELETE"

    condition {
      older_than = "2592000s"
    }
  }

  depends_on = [google_project_service.apis]
}

# What `gcloud builds submit` uploads. cloudbuild.yaml needs it no longer than a build takes.
resource "google_storage_bucket" "builds" {
  project                     = var.project_id
  name                        = "${var.project_id}-posthog-etl-build"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = true
  labels                      = var.labels

  lifecycle_rule {
    condition {
      age = 30
    }

    action {
      type = "Delete"
    }
  }

  depends_on = [google_project_service.apis]
}
