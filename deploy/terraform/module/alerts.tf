# Who is told when a run failed, when its sources are stale, and when it never came to run.
# The filters name fields of the log line that ends every run: see docs/operations.md.

locals {
  service_logs = "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"${local.service_name}\""
  job_logs     = "resource.type=\"cloud_run_job\" AND resource.labels.job_name:\"${local.service_name}\""
  runs         = "((${local.service_logs}) OR (${local.job_logs})) AND jsonPayload.event=\"run_finished\""

  # Written by Google, and so also where the service was killed or never reached.
  deliveries = "resource.type=\"cloud_scheduler_job\" AND resource.labels.job_id:\"${local.service_name}\" AND severity>=ERROR"
  executions = "${local.job_logs} AND logName:\"cloudaudit.googleapis.com%2Fsystem_event\" AND severity>=ERROR"

  alerts = {
    failed = {
      name   = "posthog-etl: a run failed"
      filter = "${local.runs} AND jsonPayload.status!=\"succeeded\" AND jsonPayload.status!=\"duplicate\" AND jsonPayload.status!=\"refused\""
      labels = {
        run_id = "EXTRACT(jsonPayload.run_id)"
        status = "EXTRACT(jsonPayload.status)"
        error  = "EXTRACT(jsonPayload.error)"
      }
      text = "Run $${log.extracted_label.run_id} ended as $${log.extracted_label.status}: $${log.extracted_label.error} See docs/operations.md, \"A failed run\"."
    }
    stale = {
      name   = "posthog-etl: the sources are stale"
      filter = "${local.runs} AND jsonPayload.is_stale=true"
      labels = {
        run_id          = "EXTRACT(jsonPayload.run_id)"
        newest_event_at = "EXTRACT(jsonPayload.newest_event_at)"
      }
      text = "Run $${log.extracted_label.run_id} found its newest event at $${log.extracted_label.newest_event_at}. Look at PostHog's batch export. See docs/operations.md, \"Stale sources\"."
    }
    undelivered = {
      name   = "posthog-etl: a scheduled run was not delivered, or ended without an answer"
      filter = "(${local.deliveries}) OR (${local.executions})"
      labels = {}
      text   = "Cloud Scheduler got no 2xx answer, or a job's execution failed. See docs/operations.md, \"No run\"."
    }
  }
}

resource "google_monitoring_notification_channel" "email" {
  for_each = var.alert_emails

  project      = var.project_id
  display_name = "posthog-etl: ${each.key}"
  type         = "email"
  labels       = { email_address = each.key }

  depends_on = [google_project_service.apis]
}

resource "google_monitoring_alert_policy" "runs" {
  for_each = local.alerts

  project      = var.project_id
  display_name = each.value.name
  combiner     = "OR"
  user_labels  = var.labels

  notification_channels = concat(
    [for channel in google_monitoring_notification_channel.email : channel.id],
    var.notification_channels,
  )

  conditions {
    display_name = each.value.name

    condition_matched_log {
      filter           = each.value.filter
      label_extractors = each.value.labels
    }
  }

  alert_strategy {
    auto_close = "86400s"

    notification_rate_limit {
      period = "3600s"
    }
  }

  documentation {
    content   = each.value.text
    mime_type = "text/markdown"
  }

  depends_on = [google_project_service.apis]
}
