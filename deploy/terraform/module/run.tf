# The service and the job of sessions: one image, one environment, one lease between them. Below, the
# Cloud Run jobs of the other jobs.

resource "google_cloud_run_v2_service" "etl" {
  project             = var.project_id
  name                = local.service_name
  location            = var.region
  description         = "PostHog and Firebase to one row per session."
  ingress             = var.ingress
  deletion_protection = var.deletion_protection
  labels              = var.labels

  template {
    service_account                  = google_service_account.runner.email
    timeout                          = "${var.timeout_seconds}s"
    max_instance_request_concurrency = var.concurrency
    execution_environment            = "EXECUTION_ENVIRONMENT_GEN2"

    scaling {
      min_instance_count = 0
      max_instance_count = 1 # a second instance would find the lease taken
    }

    containers {
      image = coalesce(var.image, "${local.placeholder}/hello")

      ports {
        container_port = 8080
      }

      resources {
        limits = {
          cpu    = tostring(local.sessions.cpu)
          memory = local.sessions.memory
        }
        cpu_idle          = true # paid only while a request is served
        startup_cpu_boost = true
      }

      startup_probe {
        period_seconds    = 5
        timeout_seconds   = 3
        failure_threshold = 12

        http_get {
          path = "/health"
        }
      }

      dynamic "env" {
        for_each = local.environment
        content {
          name  = env.key
          value = env.value
        }
      }

      dynamic "env" {
        for_each = local.secret_environment
        content {
          name = env.key
          value_source {
            secret_key_ref {
              secret  = env.value
              version = "latest"
            }
          }
        }
      }
    }
  }

  lifecycle {
    # Cloud Build deploys: the image, and what gcloud writes along with it.
    ignore_changes = [
      client,
      client_version,
      traffic,
      template[0].annotations,
      template[0].labels,
      template[0].revision,
      template[0].containers[0].image,
    ]
  }

  depends_on = [
    google_project_service.apis,
    google_secret_manager_secret_iam_member.api_key,
    google_secret_manager_secret_iam_member.jobs,
    google_secret_manager_secret_iam_member.key,
  ]
}

resource "google_cloud_run_v2_job" "etl" {
  project             = var.project_id
  name                = local.job_name
  location            = var.region
  deletion_protection = var.deletion_protection
  labels              = var.labels

  template {
    task_count  = 1
    parallelism = 1

    template {
      service_account       = google_service_account.runner.email
      timeout               = "${local.job_timeout_seconds}s"
      max_retries           = local.sessions.retries
      execution_environment = "EXECUTION_ENVIRONMENT_GEN2"

      containers {
        image   = coalesce(var.image, "${local.placeholder}/job")
        command = ["python"]
        args    = ["main.py"]

        resources {
          limits = {
            cpu    = tostring(local.sessions.cpu)
            memory = local.sessions.memory
          }
        }

        dynamic "env" {
          for_each = local.job_environment
          content {
            name  = env.key
            value = env.value
          }
        }

        dynamic "env" {
          for_each = local.secret_environment
          content {
            name = env.key
            value_source {
              secret_key_ref {
                secret  = env.value
                version = "latest"
              }
            }
          }
        }
      }
    }
  }

  lifecycle {
    ignore_changes = [
      client,
      client_version,
      template[0].annotations,
      template[0].labels,
      template[0].template[0].containers[0].image,
    ]
  }

  depends_on = [
    google_project_service.apis,
    google_secret_manager_secret_iam_member.api_key,
    google_secret_manager_secret_iam_member.jobs,
    google_secret_manager_secret_iam_member.key,
  ]
}

resource "google_cloud_run_v2_job" "jobs" {
  for_each = local.own_jobs

  project             = var.project_id
  name                = "${local.service_name}-${each.value.slug}"
  location            = var.region
  deletion_protection = var.deletion_protection
  labels              = var.labels

  template {
    task_count  = 1
    parallelism = 1

    template {
      service_account       = google_service_account.jobs[each.key].email
      timeout               = "${each.value.timeout_minutes * 60}s"
      max_retries           = each.value.retries
      execution_environment = "EXECUTION_ENVIRONMENT_GEN2"

      containers {
        image   = coalesce(var.image, "${local.placeholder}/job")
        command = ["python"]
        args    = ["main.py", "--job", each.key]

        resources {
          limits = {
            cpu    = tostring(each.value.cpu)
            memory = each.value.memory
          }
        }

        dynamic "env" {
          for_each = local.own_environment[each.key]
          content {
            name  = env.key
            value = env.value
          }
        }

        dynamic "env" {
          for_each = lookup(var.job_secrets, each.key, {})
          content {
            name = env.key
            value_source {
              secret_key_ref {
                secret  = env.value
                version = "latest"
              }
            }
          }
        }
      }
    }
  }

  lifecycle {
    ignore_changes = [
      client,
      client_version,
      template[0].annotations,
      template[0].labels,
      template[0].template[0].containers[0].image,
    ]
  }

  depends_on = [
    google_project_service.apis,
    google_secret_manager_secret_iam_member.jobs,
  ]
}
