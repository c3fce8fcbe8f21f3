#!/usr/bin/env bash
# Usage: deploy/setup-iam.sh [--dry-run]
#
# Makes what the service needs before it can be built and deployed: APIs, accounts with no more rights
# than they need, one more account for each further job, the image repository, the builds' bucket, the
# destination dataset, the secret and, if GITHUB_REPOSITORY is set, the trust in that repository's
# workflow.
# Run it again whenever you like; afterwards `deploy/build.sh --image-only`.

# shellcheck source=deploy/lib.sh
source "$(dirname "$0")/lib.sh"
begin "$@"
refuse_arguments

grant() { # grant MEMBER ROLE WHERE...: add a role to a resource's policy, where it isn't there yet
  local member="$1" role="$2"
  shift 2
  run gcloud "$@" "--member=serviceAccount:$member" "--role=$role" "$IN_PROJECT" --format=none
}

grant_project() {
  run gcloud projects add-iam-policy-binding "$PROJECT_ID" "--member=serviceAccount:$1" "--role=$2" \
    --condition=None --format=none
}

make_account() { # make_account NAME DESCRIPTION
  ensure gcloud iam service-accounts describe "$1@$ACCOUNT_DOMAIN" "$IN_PROJECT" \
    -- gcloud iam service-accounts create "$1" "--display-name=$2" "$IN_PROJECT"
}

sql() {
  run bq "--project_id=$PROJECT_ID" "--location=$BIGQUERY_LOCATION" query --nouse_legacy_sql "$1"
}

enable_apis() {
  run gcloud services enable artifactregistry.googleapis.com bigquery.googleapis.com \
    bigquerystorage.googleapis.com cloudbuild.googleapis.com cloudscheduler.googleapis.com \
    iam.googleapis.com iamcredentials.googleapis.com logging.googleapis.com run.googleapis.com \
    secretmanager.googleapis.com sts.googleapis.com "$IN_PROJECT"
}

make_accounts() {
  make_account "$RUNNER_ACCOUNT" "Runs the ETL service and job"
  make_account "$INVOKER_ACCOUNT" "Starts the nightly ETL run"
  make_account "$BUILD_ACCOUNT" "Builds and deploys the ETL image"
}

make_places() {
  ensure gcloud artifacts repositories describe "$REPOSITORY" "--location=$REGION" "$IN_PROJECT" \
    -- gcloud artifacts repositories create "$REPOSITORY" --repository-format=docker \
    "--location=$REGION" "$IN_PROJECT"
  ensure gcloud storage buckets describe "$BUCKET" "$IN_PROJECT" \
    -- gcloud storage buckets create "$BUCKET" "--location=$REGION" --uniform-bucket-level-access \
    --public-access-prevention "$IN_PROJECT"
  # Sources of builds are of no use after a month.
  run gcloud storage buckets update "$BUCKET" "--lifecycle-file=$HERE/bucket-lifecycle.json" "$IN_PROJECT"
}

# The runner may query, read the sources and write the destination: no other dataset, no administration.
allow_runner() {
  grant_project "$RUNNER" roles/bigquery.jobUser
  grant_project "$RUNNER" roles/bigquery.readSessionUser
  grant_dataset roles/bigquery.dataViewer "$POSTHOG_DATASET_ID"
  grant_dataset roles/bigquery.dataViewer "$FIREBASE_DATASET_ID"
  # After the sources, which are not found in a wrong location: a dataset can't be moved.
  sql "CREATE SCHEMA IF NOT EXISTS \`$PROJECT_ID.$POSTHOG_AGGREGATED_DATASET_ID\` OPTIONS (location = \"$BIGQUERY_LOCATION\")"
  grant_dataset roles/bigquery.dataEditor "$POSTHOG_AGGREGATED_DATASET_ID"
}

grant_dataset() { # grant_dataset ROLE DATASET [MEMBER]
  sql "GRANT \`$1\` ON SCHEMA \`$PROJECT_ID.$2\` TO \"serviceAccount:${3:-$RUNNER}\""
}

# A Cloud Run job of its own has an account of its own, which may query, write its dataset and keep its
# lease, its ledger row and its staging tables in the destination. In mode service it is the runner's.
allow_job() { # allow_job JOB
  local account pair
  account="$(runner_of "$1")"
  if [[ $account != "$RUNNER" ]]; then
    make_account "$(account_name "$1")" "Runs the ETL job $1"
    grant_project "$account" roles/bigquery.jobUser
    grant_dataset roles/bigquery.dataEditor "$POSTHOG_AGGREGATED_DATASET_ID" "$account"
    grant "$BUILDER" roles/iam.serviceAccountUser iam service-accounts add-iam-policy-binding "$account"
  fi
  for pair in $(dataset_of "$1"); do
    sql "CREATE SCHEMA IF NOT EXISTS \`$PROJECT_ID.${pair#*=}\` OPTIONS (location = \"$BIGQUERY_LOCATION\")"
    grant_dataset roles/bigquery.dataEditor "${pair#*=}" "$account"
  done
  for pair in $(job_config "$1" SECRETS); do
    make_empty_secret "${pair#*=}"
    grant "$account" roles/secretmanager.secretAccessor secrets add-iam-policy-binding "${pair#*=}"
  done
}

make_empty_secret() {
  ensure gcloud secrets describe "$1" "$IN_PROJECT" \
    -- gcloud secrets create "$1" --replication-policy=automatic "$IN_PROJECT"
}

make_secret() {
  local secret="--secret=$BIGQUERY_SECRET_NAME"
  [[ $BIGQUERY_SECRET_NAME ]] || return 0
  make_empty_secret "$BIGQUERY_SECRET_NAME"
  grant "$RUNNER" roles/secretmanager.secretAccessor \
    secrets add-iam-policy-binding "$BIGQUERY_SECRET_NAME"
  if [[ $KEY_FILE ]]; then
    ensure gcloud secrets versions describe latest "$secret" "$IN_PROJECT" \
      -- gcloud secrets versions add "$BIGQUERY_SECRET_NAME" "--data-file=$KEY_FILE" "$IN_PROJECT"
  fi
}

# The builder may read what it builds, log, push images and act as the runner, which what it deploys
# runs as. To deploy, deploy.sh lets it: on the service and the job alone, which don't exist yet.
allow_builder() {
  grant_project "$BUILDER" roles/logging.logWriter
  grant "$BUILDER" roles/artifactregistry.writer \
    artifacts repositories add-iam-policy-binding "$REPOSITORY" "--location=$REGION"
  grant "$BUILDER" roles/storage.objectViewer storage buckets add-iam-policy-binding "$BUCKET"
  grant "$BUILDER" roles/iam.serviceAccountUser iam service-accounts add-iam-policy-binding "$RUNNER"
  # On itself: an identity token, to ask a new revision for /health.
  grant "$BUILDER" roles/iam.serviceAccountOpenIdTokenCreator \
    iam service-accounts add-iam-policy-binding "$BUILDER"
}

# Workload Identity Federation: GitHub says who asks, and no key exists. Only the main branch of this
# one repository may start builds, in the environment that the workflow names.
trust_github() {
  [[ $GITHUB_REPOSITORY ]] || return 0
  local pool=(--location=global "--workload-identity-pool=$GITHUB_POOL")
  local deployer="$GITHUB_ACCOUNT@$ACCOUNT_DOMAIN" number
  local condition="assertion.repository == \"$GITHUB_REPOSITORY\" && assertion.ref == \"refs/heads/main\""
  condition+=" && assertion.environment == \"production\""
  make_account "$GITHUB_ACCOUNT" "Starts builds from GitHub"
  ensure gcloud iam workload-identity-pools describe "$GITHUB_POOL" --location=global "$IN_PROJECT" \
    -- gcloud iam workload-identity-pools create "$GITHUB_POOL" --location=global "$IN_PROJECT"
  ensure gcloud iam workload-identity-pools providers describe github "${pool[@]}" "$IN_PROJECT" \
    -- gcloud iam workload-identity-pools providers create-oidc github "${pool[@]}" \
    --issuer-uri=https://token.actions.githubusercontent.com \
    --attribute-mapping=google.subject=assertion.sub,attribute.repository=assertion.repository \
    "--attribute-condition=$condition" "$IN_PROJECT"
  # Also where it was there, perhaps for another repository.
  run gcloud iam workload-identity-pools providers update-oidc github "${pool[@]}" \
    "--attribute-condition=$condition" "$IN_PROJECT"
  number=$(ask PROJECT_NUMBER gcloud projects describe "$PROJECT_ID" '--format=value(projectNumber)')
  run gcloud iam service-accounts add-iam-policy-binding "$deployer" --role=roles/iam.workloadIdentityUser \
    "--member=principalSet://iam.googleapis.com/projects/$number/locations/global/workloadIdentityPools/$GITHUB_POOL/attribute.repository/$GITHUB_REPOSITORY" \
    "$IN_PROJECT" --format=none
  grant_project "$deployer" roles/cloudbuild.builds.editor
  grant_project "$deployer" roles/serviceusage.serviceUsageConsumer
  grant "$deployer" roles/storage.objectUser storage buckets add-iam-policy-binding "$BUCKET"
  grant "$deployer" roles/storage.legacyBucketReader storage buckets add-iam-policy-binding "$BUCKET"
  grant "$deployer" roles/iam.serviceAccountUser \
    iam service-accounts add-iam-policy-binding "$BUILDER"
}

enable_apis
make_accounts
make_places
allow_runner
make_secret
allow_builder
for job in $OTHER_JOBS; do
  allow_job "$job"
done
trust_github
