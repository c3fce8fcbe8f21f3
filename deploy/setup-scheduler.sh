#!/usr/bin/env bash
# Usage: deploy/setup-scheduler.sh [--paused] [--dry-run]
#
# Makes a schedule for each job that config/jobs.yaml says is deployed; each starts the service or a
# Cloud Run job, as its mode says. WEEKLY_FULL_LOAD and WEEKLY_VERIFY make one more each: a full load, and
# a verification of 20 stored sessions. With --paused they wait for `deploy/rollback.sh resume`.
# The service and the job must exist: `deploy/deploy.sh`.

# shellcheck source=deploy/lib.sh
source "$(dirname "$0")/lib.sh"
begin "$@"
paused=false
if [[ ${ARGUMENTS[*]:-} == --paused ]]; then paused=true; else refuse_arguments; fi

where=("--location=$REGION" "$IN_PROJECT")

# The service, by an identity token. The audience is its URL: the default would be the URL with /run.
target_service() {
  local url
  run gcloud run services add-iam-policy-binding "$SERVICE" "--member=serviceAccount:$INVOKER" \
    --role=roles/run.invoker "$IN_REGION" "$IN_PROJECT" --format=none
  url=$(ask https://SERVICE_URL gcloud run services describe "$SERVICE" "$IN_REGION" "$IN_PROJECT" \
    '--format=value(status.url)')
  target=("--uri=$url/run" "--oidc-service-account-email=$INVOKER" "--oidc-token-audience=$url")
  daily='{"full_load": false}'
  weekly='{"full_load": true}'
}

# The job, by an access token for Cloud Run's API. It answers at once, when the job has started.
target_job() {
  local role=roles/run.invoker
  # Another argument is an override, which run.invoker may not give.
  [[ ! $WEEKLY_FULL_LOAD ]] || role=roles/run.jobsExecutorWithOverrides
  start_job "$JOB" "$role"
  daily='{}'
  weekly='{"overrides": {"containerOverrides": [{"args": ["main.py", "--full-load"]}]}}'
}

start_job() { # start_job NAME ROLE: the target of a Cloud Run job, which the invoker may start
  run gcloud run jobs add-iam-policy-binding "$1" "--member=serviceAccount:$INVOKER" \
    "--role=$2" "$IN_REGION" "$IN_PROJECT" --format=none
  target=("--uri=https://run.googleapis.com/v2/projects/$PROJECT_ID/locations/$REGION/jobs/$1:run"
    "--oauth-service-account-email=$INVOKER")
}

# Retried after 5, 10 and 20 minutes: an instance that was killed has lost its lease by then.
make_schedule() { # make_schedule NAME CRON BODY TIME_ZONE RETRIES
  local flags=("--schedule=$2" "--time-zone=$4" "${target[@]}" --http-method=post
    "--message-body=$3" --attempt-deadline=30m "--max-retry-attempts=$5" --min-backoff=300s
    --max-backoff=1800s --max-doublings=2 "${where[@]}")
  ensure gcloud scheduler jobs describe "$1" "${where[@]}" \
    -- gcloud scheduler jobs create http "$1" "${flags[@]}" --headers=Content-Type=application/json
  run gcloud scheduler jobs update http "$1" "${flags[@]}" --update-headers=Content-Type=application/json
  ! $paused || run gcloud scheduler jobs pause "$1" "${where[@]}"
}

remove_schedule() { # remove_schedule NAME
  remove gcloud scheduler jobs describe "$1" "${where[@]}" \
    -- gcloud scheduler jobs delete "$1" "${where[@]}" --quiet
}

"target_$SCHEDULE_TARGET"
make_schedule "$SCHEDULE_NAME" "$SCHEDULE" "$daily" "$TIME_ZONE" "$RETRIES"
if [[ $WEEKLY_FULL_LOAD ]]; then
  make_schedule "$WEEKLY_NAME" "$WEEKLY_FULL_LOAD" "$weekly" "$TIME_ZONE" "$RETRIES"
else
  remove_schedule "$WEEKLY_NAME"
fi
if [[ $WEEKLY_VERIFY ]]; then # by the Cloud Run job in either mode: its outcome is in the ledger
  start_job "$JOB" roles/run.jobsExecutorWithOverrides
  verify='{"overrides": {"containerOverrides": [{"args": ["main.py", "--check", "--verify", "20"]}]}}'
  make_schedule "$VERIFY_NAME" "$WEEKLY_VERIFY" "$verify" "$TIME_ZONE" "$RETRIES"
else
  remove_schedule "$VERIFY_NAME"
fi

for job in $OTHER_JOBS; do
  if [[ $(job_value "$job" mode) == job ]]; then
    start_job "$(job_name "$job")" roles/run.invoker
    body='{}'
  else
    target_service
    body="{\"job\": \"$job\"}"
  fi
  make_schedule "$(schedule_name "$job")" "$(job_value "$job" cron)" "$body" \
    "$(job_value "$job" time_zone)" "$(job_value "$job" retries)"
done
