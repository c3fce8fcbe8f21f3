#!/usr/bin/env bash
# Usage: deploy/rollback.sh service [REVISION] [--dry-run]   all traffic to REVISION (default: the one
#                                                            before the one that serves now)
#        deploy/rollback.sh job TAG [JOB] [--dry-run]        the image of a job (default: sessions)
#        deploy/rollback.sh pause | resume [JOB] [--dry-run] the schedules, or that of one job
#
# Data needs no rollback: see docs/operations.md. Traffic stays with the revision until the next
# deploy.sh or build.

# shellcheck source=deploy/lib.sh
source "$(dirname "$0")/lib.sh"
begin "$@"
where=("$IN_REGION" "$IN_PROJECT")

# The name of the newest ready revision that is older than the one with the traffic.
previous_revision() {
  local serving ready
  serving=$(ask SERVING_REVISION gcloud run services describe "$SERVICE" "${where[@]}" \
    '--flatten=status.traffic[]' '--format=value(status.traffic.percent,status.traffic.revisionName)')
  ready=$(ask PREVIOUS_REVISION gcloud run revisions list "--service=$SERVICE" "${where[@]}" \
    '--filter=status.conditions.type:Ready AND status.conditions.status:True' \
    '--sort-by=~metadata.creationTimestamp' '--format=value(metadata.name)')
  if $DRY_RUN; then
    echo "$ready"
  else
    serving=$(awk '$1 == 100 { print $2 }' <<<"$serving")
    awk -v serving="$serving" 'found { print; exit } $1 == serving { found = 1 }' <<<"$ready"
  fi
}

roll_back_service() {
  local revision="$1"
  [[ $revision ]] || revision=$(previous_revision)
  [[ $revision ]] || fail "There is no earlier revision of $SERVICE: name one."
  run gcloud run services update-traffic "$SERVICE" "--to-revisions=$revision=100" "${where[@]}" --quiet
}

schedules() { # schedules VERB [JOB]
  local job names=()
  if [[ ${2:-sessions} == sessions ]]; then
    names+=("$SCHEDULE_NAME")
    [[ ! $WEEKLY_FULL_LOAD ]] || names+=("$WEEKLY_NAME")
    [[ ! $WEEKLY_VERIFY ]] || names+=("$VERIFY_NAME")
  fi
  for job in ${2:-$OTHER_JOBS}; do
    [[ $job == sessions ]] || names+=("$(schedule_name "$job")")
  done
  for job in "${names[@]}"; do
    run gcloud scheduler jobs "$1" "$job" "--location=$REGION" "$IN_PROJECT"
  done
}

roll_back_job() { # roll_back_job TAG [JOB]
  local name="$JOB"
  [[ ${2:-sessions} == sessions ]] || name="$(job_name "$2")"
  run gcloud run jobs update "$name" "--image=$IMAGE_PATH:$1" "${where[@]}"
}

case "${ARGUMENTS[*]:-}" in
  service | "service "*) roll_back_service "${ARGUMENTS[1]:-}" ;;
  "job "*) roll_back_job "${ARGUMENTS[@]:1}" ;;
  pause | resume | "pause "* | "resume "*) schedules "${ARGUMENTS[@]}" ;;
  *) fail "$(usage)" ;;
esac
