output "service_url" {
  description = "Address of the service: also the audience of tokens for it."
  value       = google_cloud_run_v2_service.etl.uri
}

output "job_name" {
  description = "Name of the job."
  value       = google_cloud_run_v2_job.etl.name
}

output "schedules" {
  description = "Names of the schedules."
  value       = sort(keys(google_cloud_scheduler_job.etl))
}

output "image_path" {
  description = "Where Cloud Build pushes the image, without a tag."
  value       = local.image_path
}

output "accounts" {
  description = "E-mail addresses of the runner, the scheduler and the build."
  value = {
    runner    = google_service_account.runner.email
    scheduler = google_service_account.scheduler.email
    build     = google_service_account.build.email
  }
}
