output "service_url" {
  description = "Address of the service."
  value       = module.posthog_etl.service_url
}

output "image_path" {
  description = "Where Cloud Build pushes the image, without a tag."
  value       = module.posthog_etl.image_path
}

output "accounts" {
  description = "E-mail addresses of the runner, the scheduler and the build."
  value       = module.posthog_etl.accounts
}
