#!/usr/bin/env bash
# Usage: deploy/setup-scheduler.sh [--paused] [--dry-run]
#
# Makes the daily schedule, and the weekly full load where WEEKLY_FULL_LOAD says when; they start the
# service or the job, as SCHEDULE_TARGET says. With --paused they wait for `deploy/rollback.sh resume`.
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
  run gcloud run jobs add-iam-policy-binding "$JOB" "--member=serviceAccount:$INVOKER" \
    "--role=$role" "$IN_REGION" "$IN_PROJECT" --format=none
  target=("--uri=https://run.googleapis.com/v2/projects/$PROJECT_ID/locations/$REGION/jobs/$JOB:run"
    "--oauth-service-account-email=$INVOKER")
  daily='{}'
  weekly='{"overrides": {"containerOverrides": [{"args": ["main.py", "--full-load"]}]}}'
}

# Retried after 5, 10 and 20 minutes: an instance that was killed has lost its lease by then.
make_schedule() { # make_schedule NAME CRON BODY
  local flags=("--schedule=$2" "--time-zone=$TIME_ZONE" "${target[@]}" --http-method=post
    "--message-body=$3" --attempt-deadline=30m --max-retry-attempts=3 --min-backoff=300s
    --max-backoff=1800s --max-doublings=2 "${where[@]}")
  ensure gcloud scheduler jobs describe "$1" "${where[@]}" \
    -- gcloud scheduler jobs create http "$1" "${flags[@]}" --headers=Content-Type=application/json
  run gcloud scheduler jobs update http "$1" "${flags[@]}" --update-headers=Content-Type=application/json
  ! $paused || run gcloud scheduler jobs pause "$1" "${where[@]}"
}

"target_$SCHEDULE_TARGET"
make_schedule "$SCHEDULE_NAME" "$SCHEDULE" "$daily"
if [[ $WEEKLY_FULL_LOAD ]]; then
  make_schedule "$WEEKLY_NAME" "$WEEKLY_FULL_LOAD" "$weekly"
else
  remove gcloud scheduler jobs describe "$WEEKLY_NAME" "${where[@]}" \
    -- gcloud scheduler jobs delete "$WEEKLY_NAME" "${where[@]}" --quiet
fi
