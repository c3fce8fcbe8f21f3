#!/usr/bin/env bash
# Usage: deploy/teardown.sh [--yes] [--dry-run]
#
# Deletes the schedules, the service, the jobs that config/jobs.yaml says are deployed, the images, the
# builds' bucket, the secrets, the accounts and their roles. All datasets stay. Asks first, unless --yes.

# shellcheck source=deploy/lib.sh
source "$(dirname "$0")/lib.sh"
begin "$@"
if [[ ${ARGUMENTS[*]:-} != --yes ]]; then
  refuse_arguments
  if ! $DRY_RUN; then
    read -r -p "Delete the ETL and its images, secret and accounts from $PROJECT_ID? Type its id: " answer
    [[ $answer == "$PROJECT_ID" ]] || fail "Nothing was deleted."
  fi
fi

sql() {
  attempt bq "--project_id=$PROJECT_ID" "--location=$BIGQUERY_LOCATION" query --nouse_legacy_sql "$1"
}

take_project_role() {
  attempt gcloud projects remove-iam-policy-binding "$PROJECT_ID" "--member=serviceAccount:$1" \
    "--role=$2" --condition=None --format=none
}

take_dataset_role() { # take_dataset_role ROLE DATASET [MEMBER]
  sql "REVOKE \`$1\` ON SCHEMA \`$PROJECT_ID.$2\` FROM \"serviceAccount:${3:-$RUNNER}\""
}

delete_secret() {
  remove gcloud secrets describe "$1" "$IN_PROJECT" -- gcloud secrets delete "$1" "$IN_PROJECT" --quiet
}

delete_job() { # delete_job JOB
  local account pair
  account="$(runner_of "$1")"
  remove gcloud scheduler jobs describe "$(schedule_name "$1")" "--location=$REGION" "$IN_PROJECT" \
    -- gcloud scheduler jobs delete "$(schedule_name "$1")" "--location=$REGION" "$IN_PROJECT" --quiet
  remove gcloud run jobs describe "$(job_name "$1")" "$IN_REGION" "$IN_PROJECT" \
    -- gcloud run jobs delete "$(job_name "$1")" "$IN_REGION" "$IN_PROJECT" --quiet
  for pair in $(dataset_of "$1"); do
    take_dataset_role roles/bigquery.dataEditor "${pair#*=}" "$account"
  done
  for pair in $(job_config "$1" SECRETS); do
    delete_secret "${pair#*=}"
  done
  if [[ $account != "$RUNNER" ]]; then
    take_project_role "$account" roles/bigquery.jobUser
    take_dataset_role roles/bigquery.dataEditor "$POSTHOG_AGGREGATED_DATASET_ID" "$account"
    delete_account "$account"
  fi
}

delete_account() {
  remove gcloud iam service-accounts describe "$1" "$IN_PROJECT" \
    -- gcloud iam service-accounts delete "$1" "$IN_PROJECT" --quiet
}

for job in $OTHER_JOBS; do
  delete_job "$job"
done
for schedule in "$SCHEDULE_NAME" "$WEEKLY_NAME" "$VERIFY_NAME"; do
  remove gcloud scheduler jobs describe "$schedule" "--location=$REGION" "$IN_PROJECT" \
    -- gcloud scheduler jobs delete "$schedule" "--location=$REGION" "$IN_PROJECT" --quiet
done
remove gcloud run services describe "$SERVICE" "$IN_REGION" "$IN_PROJECT" \
  -- gcloud run services delete "$SERVICE" "$IN_REGION" "$IN_PROJECT" --quiet
remove gcloud run jobs describe "$JOB" "$IN_REGION" "$IN_PROJECT" \
  -- gcloud run jobs delete "$JOB" "$IN_REGION" "$IN_PROJECT" --quiet
remove gcloud artifacts repositories describe "$REPOSITORY" "--location=$REGION" "$IN_PROJECT" \
  -- gcloud artifacts repositories delete "$REPOSITORY" "--location=$REGION" "$IN_PROJECT" --quiet
remove gcloud storage buckets describe "$BUCKET" "$IN_PROJECT" \
  -- gcloud storage rm "$BUCKET" --recursive "$IN_PROJECT"
[[ ! $BIGQUERY_SECRET_NAME ]] || delete_secret "$BIGQUERY_SECRET_NAME"

take_project_role "$RUNNER" roles/bigquery.jobUser
take_project_role "$RUNNER" roles/bigquery.readSessionUser
take_dataset_role roles/bigquery.dataViewer "$POSTHOG_DATASET_ID"
take_dataset_role roles/bigquery.dataViewer "$FIREBASE_DATASET_ID"
take_dataset_role roles/bigquery.dataEditor "$POSTHOG_AGGREGATED_DATASET_ID"
take_project_role "$BUILDER" roles/logging.logWriter
accounts=("$RUNNER" "$INVOKER" "$BUILDER")
if [[ $GITHUB_REPOSITORY ]]; then
  deployer="$GITHUB_ACCOUNT@$ACCOUNT_DOMAIN"
  take_project_role "$deployer" roles/cloudbuild.builds.editor
  take_project_role "$deployer" roles/serviceusage.serviceUsageConsumer
  accounts+=("$deployer")
  remove gcloud iam workload-identity-pools describe "$GITHUB_POOL" --location=global "$IN_PROJECT" \
    -- gcloud iam workload-identity-pools delete "$GITHUB_POOL" --location=global "$IN_PROJECT" --quiet
fi
for account in "${accounts[@]}"; do
  delete_account "$account"
done
