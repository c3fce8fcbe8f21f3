#!/usr/bin/env bash
# Usage: deploy/build.sh [--image-only] [--dry-run] [TAG]
#
# Sends this working tree to Cloud Build: cloudbuild.yaml tests it, builds the image, pushes it as TAG
# (the build's id where none is given) and `latest`, and deploys it. The first time there is nothing
# to deploy to: `deploy/build.sh --image-only`, then `deploy/deploy.sh`.

# shellcheck source=deploy/lib.sh
source "$(dirname "$0")/lib.sh"
begin "$@"

tag="" deploys=true
for argument in ${ARGUMENTS[@]+"${ARGUMENTS[@]}"}; do
  case "$argument" in
    --image-only) deploys=false ;;
    [A-Za-z0-9_]*) tag="$argument" ;;
    *) fail "There is no $argument: see $0 --help." ;;
  esac
done

# Cloud Build gives the image to every Cloud Run job.
jobs="$JOB"
for job in $(find_jobs job); do
  jobs+=" $(job_name "$job")"
done
substitutions="_REGION=$REGION,_IMAGE_PATH=$IMAGE_PATH,_SERVICE=$SERVICE,_JOB=$jobs"
substitutions+=",_BUILD_ACCOUNT=$BUILD_ACCOUNT,_DEPLOY=$deploys,_TAG=$tag"

run gcloud builds submit "$HERE/.." "--config=$HERE/../cloudbuild.yaml" \
  "--gcs-source-staging-dir=$BUCKET/source" "--substitutions=$substitutions" \
  "$IN_REGION" "$IN_PROJECT"
