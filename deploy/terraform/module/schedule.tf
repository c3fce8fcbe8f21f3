# A schedule for each job that is deployed, and a weekly full load and verification where they are wanted.

locals {
  job_uris = {
    for name in concat([local.job_name], [for job in local.own_jobs : "${local.service_name}-${job.slug}"]) :
    name => "https://run.googleapis.com/v2/projects/${var.project_id}/locations/${var.region}/jobs/${name}:run"
  }
  run_uri = "${google_cloud_run_v2_service.etl.uri}/run"

  # What starts a run of sessions, and what it is sent.
  targets = {
    service = {
      uri         = local.run_uri
      daily_body  = jsonencode({ full_load = false })
      weekly_body = jsonencode({ full_load = true })
    }
    job = {
      uri         = local.job_uris[local.job_name]
      daily_body  = jsonencode({})
      weekly_body = jsonencode({ overrides = { containerOverrides = [{ args = ["main.py", "--full-load"] }] } })
    }
  }
  target = local.targets[local.sessions.mode]

  schedules = merge(
    {
      (local.schedule_name) = merge(local.sessions, {
        description = "Brings posthog_aggregated up to date"
        uri         = local.target.uri
        body        = local.target.daily_body
      })
    },
    var.weekly_full_load_schedule == null ? {} : {
      (local.weekly_name) = merge(local.sessions, {
        description = "Builds posthog_aggregated anew"
        cron        = var.weekly_full_load_schedule
        uri         = local.target.uri
        body        = local.target.weekly_body
      })
    },
    var.weekly_verify_schedule == null ? {} : {
      (local.verify_name) = merge(local.sessions, {
        description = "Verifies 20 stored sessions"
        mode        = "job"
        cron        = var.weekly_verify_schedule
        uri         = local.job_uris[local.job_name]
        body        = jsonencode({ overrides = { containerOverrides = [{ args = ["main.py", "--check", "--verify", "20"] }] } })
      })
    },
    {
      for name, job in local.own_jobs : "${local.service_name}-${job.slug}-trigger" => merge(job, {
        description = "Starts the job ${name}"
        uri         = local.job_uris["${local.service_name}-${job.slug}"]
        body        = jsonencode({})
      })
    },
    {
      for name, job in local.guest_jobs : "${local.service_name}-${job.slug}-trigger" => merge(job, {
        description = "Runs the job ${name}"
        uri         = local.run_uri
        body        = jsonencode({ job = name })
      })
    },
  )
}

resource "google_cloud_scheduler_job" "etl" {
  for_each = local.schedules

  project          = var.project_id
  region           = var.region
  name             = each.key
  description      = each.value.description
  schedule         = each.value.cron
  time_zone        = each.value.time_zone
  attempt_deadline = "${var.attempt_deadline_seconds}s"
  paused           = var.start_paused

  # After 5, 10 and 20 minutes: an instance that was killed has lost its lease by then.
  retry_config {
    retry_count          = each.value.retries
    min_backoff_duration = "300s"
    max_backoff_duration = "1800s"
    max_doublings        = 2
  }

  http_target {
    http_method = "POST"
    uri         = each.value.uri
    headers     = { "Content-Type" = "application/json" }
    body        = base64encode(each.value.body)

    dynamic "oidc_token" {
      for_each = each.value.mode == "service" ? [google_service_account.scheduler.email] : []
      content {
        service_account_email = oidc_token.value
        audience              = google_cloud_run_v2_service.etl.uri # the default would be the address with /run
      }
    }

    dynamic "oauth_token" {
      for_each = each.value.mode == "job" ? [google_service_account.scheduler.email] : []
      content {
        service_account_email = oauth_token.value
        scope                 = "https://www.googleapis.com/auth/cloud-platform"
      }
    }
  }

  lifecycle {
    # Somebody who paused it in an incident must not meet an apply that resumes it.
    ignore_changes = [paused]
  }

  depends_on = [google_project_service.apis, google_cloud_run_v2_job.etl, google_cloud_run_v2_job.jobs]
}
