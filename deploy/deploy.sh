#!/usr/bin/env bash
# Usage: deploy/deploy.sh [--dry-run] [TAG]
#
# Makes the service and the job what config.env says, from the image TAG (default: latest), and sends
# the service's traffic to it. Cloud Run gives a revision no traffic before it answers GET /health.
# Run it again after each change of config.env. cloudbuild.yaml deploys the image of each commit.

# shellcheck source=deploy/lib.sh
source "$(dirname "$0")/lib.sh"
begin "$@"
tag="${ARGUMENTS[*]:-latest}"
[[ $tag =~ ^[A-Za-z0-9_][A-Za-z0-9_.-]*$ ]] || fail "There is no $tag: see $0 --help."

variables="GOOGLE_CLOUD_PROJECT_ID=$PROJECT_ID"
for name in POSTHOG_DATASET_ID FIREBASE_DATASET_ID POSTHOG_AGGREGATED_DATASET_ID BIGQUERY_LOCATION \
  BIGQUERY_SECRET_NAME; do # set to empty, the last one means: no key
  variables+="|$name=${!name}"
done
for pair in $SETTINGS; do
  variables+="|$pair"
done
# The part that each further Cloud Run job needs: where BigQuery is, and that its account has no key.
common="GOOGLE_CLOUD_PROJECT_ID=$PROJECT_ID|BIGQUERY_LOCATION=$BIGQUERY_LOCATION|BIGQUERY_SECRET_NAME="
common+="|POSTHOG_AGGREGATED_DATASET_ID=$POSTHOG_AGGREGATED_DATASET_ID"
job_variables="$variables|ETL_TIMEOUT_SECONDS=$((JOB_TIMEOUT_SECONDS - 300))"
job_variables+="|LEASE_WAIT_SECONDS=$JOB_LEASE_WAIT_SECONDS"

# The service runs the jobs in mode service, and so has their settings.
for job in $(find_jobs service); do
  variables+="$(job_settings "$job")"
done
# shellcheck disable=SC2046 # names of jobs
secrets="$(secret_flags $(find_jobs service))"

both=("--image=$IMAGE_PATH:$tag" "--service-account=$RUNNER" "--cpu=$CPU" "--memory=$MEMORY"
  "$IN_REGION" "$IN_PROJECT" --quiet)

# One instance: a second one would find the lease taken. `^|^`: values may hold commas.
run gcloud run deploy "$SERVICE" "${both[@]}" "--set-env-vars=^|^$variables" \
  "--concurrency=$CONCURRENCY" --min-instances=0 --max-instances=1 --timeout=3600 --port=8080 \
  ${secrets:+"$secrets"} --no-allow-unauthenticated --execution-environment=gen2 --cpu-boost \
  --startup-probe=httpGet.path=/health,httpGet.port=8080,periodSeconds=5,timeoutSeconds=3,failureThreshold=12
# After a rollback, traffic would otherwise stay with the older revision.
run gcloud run services update-traffic "$SERVICE" --to-latest "$IN_REGION" "$IN_PROJECT" --quiet

# A run may be repeated safely, so Cloud Run retries a task that failed.
run gcloud run jobs deploy "$JOB" "${both[@]}" "--set-env-vars=^|^$job_variables" \
  --command=python --args=main.py --tasks=1 "--max-retries=$RETRIES" "--task-timeout=${JOB_TIMEOUT_SECONDS}s"

# deploy_job JOB: a Cloud Run job of its own, as large as config/jobs.yaml says.
deploy_job() {
  local name seconds secrets
  name="$(job_name "$1")"
  seconds=$((60 * $(job_value "$1" timeout_minutes)))
  secrets="$(secret_flags "$1")"
  run gcloud run jobs deploy "$name" "--image=$IMAGE_PATH:$tag" "--service-account=$(runner_of "$1")" \
    "--cpu=$(job_value "$1" cpu)" "--memory=$(job_value "$1" memory)" "$IN_REGION" "$IN_PROJECT" --quiet \
    "--set-env-vars=^|^$common|ETL_TIMEOUT_SECONDS=$((seconds - 300))$(job_settings "$1")" \
    ${secrets:+"$secrets"} --command=python "--args=main.py,--job,$1" --tasks=1 \
    "--max-retries=$(job_value "$1" retries)" "--task-timeout=${seconds}s"
  run gcloud run jobs add-iam-policy-binding "$name" "--member=serviceAccount:$BUILDER" \
    --role=roles/run.developer "$IN_REGION" "$IN_PROJECT" --format=none
}

for job in $(find_jobs job); do
  deploy_job "$job"
done

# The builder deploys the next images: on these two and nothing else, and asks the service for /health.
for role in roles/run.developer roles/run.invoker; do
  run gcloud run services add-iam-policy-binding "$SERVICE" "--member=serviceAccount:$BUILDER" \
    "--role=$role" "$IN_REGION" "$IN_PROJECT" --format=none
done
run gcloud run jobs add-iam-policy-binding "$JOB" "--member=serviceAccount:$BUILDER" \
  --role=roles/run.developer "$IN_REGION" "$IN_PROJECT" --format=none
