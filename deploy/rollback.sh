#!/usr/bin/env bash
# Usage: deploy/rollback.sh service [REVISION] [--dry-run]   all traffic to REVISION (default: the one
#                                                            before the one that serves now)
#        deploy/rollback.sh job TAG [--dry-run]              the job's image
#        deploy/rollback.sh pause | resume [--dry-run]       the schedules
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

schedules() { # schedules VERB
  run gcloud scheduler jobs "$1" "$SCHEDULE_NAME" "--location=$REGION" "$IN_PROJECT"
  [[ ! $WEEKLY_FULL_LOAD ]] ||
    run gcloud scheduler jobs "$1" "$WEEKLY_NAME" "--location=$REGION" "$IN_PROJECT"
}

case "${ARGUMENTS[*]:-}" in
  service | "service "*) roll_back_service "${ARGUMENTS[1]:-}" ;;
  "job "*) run gcloud run jobs update "$JOB" "--image=$IMAGE_PATH:${ARGUMENTS[1]}" "${where[@]}" ;;
  pause | resume) schedules "${ARGUMENTS[0]}" ;;
  *) fail "$(usage)" ;;
esac
