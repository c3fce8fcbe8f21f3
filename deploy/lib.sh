# shellcheck shell=bash
# What the scripts beside this share: options, the configuration, and running or showing a command.

set -euo pipefail
exec 3>&1 # commands are shown here, also from within $(...)

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
DRY_RUN=false
ARGUMENTS=()

fail() {
  echo "$*" >&2
  exit 2
}

# The comment at the top of the script.
usage() {
  sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
}

# begin "$@": take --dry-run and --help, leave the rest in ARGUMENTS, and read the configuration.
begin() {
  local argument
  for argument in "$@"; do
    case "$argument" in
      --dry-run) DRY_RUN=true ;;
      --help) usage && exit ;;
      *) ARGUMENTS+=("$argument") ;;
    esac
  done
  read_config
}

# refuse_arguments: for a script that takes no others.
refuse_arguments() {
  [[ ${#ARGUMENTS[@]} -eq 0 ]] || fail "There is no ${ARGUMENTS[0]}: see $0 --help."
}

# shellcheck disable=SC2034 # what follows from the configuration is for the scripts
read_config() {
  local file="${DEPLOY_CONFIG:-$HERE/config.env}"
  [[ -f $file ]] || fail "There is no $file: copy config.example.env to it and fill it in."
  # shellcheck source=deploy/config.example.env
  source "$HERE/config.example.env"
  # shellcheck source=/dev/null
  source "$file"
  check_config

  ACCOUNT_DOMAIN="$PROJECT_ID.iam.gserviceaccount.com"
  RUNNER="$RUNNER_ACCOUNT@$ACCOUNT_DOMAIN"
  INVOKER="$INVOKER_ACCOUNT@$ACCOUNT_DOMAIN"
  BUILDER="$BUILD_ACCOUNT@$ACCOUNT_DOMAIN"
  WEEKLY_NAME="$SERVICE-weekly-full-load"
  BUCKET="gs://${BUILD_BUCKET:-$PROJECT_ID-posthog-etl-build}"
  IMAGE_PATH="$IMAGE"
  [[ $IMAGE == */* ]] || IMAGE_PATH="$REGION-docker.pkg.dev/$PROJECT_ID/$REPOSITORY/$IMAGE"
  IN_PROJECT="--project=$PROJECT_ID"
  IN_REGION="--region=$REGION"
}

# Refuse a configuration whose values are not what they should be, naming all of them.
check_config() {
  PROBLEMS=()
  local name='[a-z][a-z0-9-]{0,61}[a-z0-9]' account='[a-z][a-z0-9-]{4,28}[a-z0-9]' number='[0-9]+'
  local cron='[^ ]+ [^ ]+ [^ ]+ [^ ]+ [^ ]+' variable
  check PROJECT_ID "$account" "a project id, like my-project-123"
  check REGION '[a-z]+-[a-z]+[0-9]+' "a region, like us-central1"
  for variable in SERVICE JOB SCHEDULE_NAME REPOSITORY; do
    check $variable "$name" "a name of small letters, digits and hyphens"
  done
  check IMAGE '[a-z0-9][a-z0-9./_-]*' "an image name or path, without a tag"
  check BUILD_BUCKET '([a-z0-9][a-z0-9._-]+)?' "a bucket name, or empty"
  for variable in RUNNER_ACCOUNT INVOKER_ACCOUNT BUILD_ACCOUNT GITHUB_ACCOUNT; do
    check $variable "$account" "an account name of 6 to 30 small letters, digits and hyphens"
  done
  check BIGQUERY_LOCATION '[A-Za-z][A-Za-z0-9-]+' "a BigQuery location, like US"
  [[ $(continent "$REGION") == $(continent "$BIGQUERY_LOCATION") ]] ||
    PROBLEMS+=("REGION must be on the continent of BIGQUERY_LOCATION: people's data would leave it.")
  for variable in POSTHOG_DATASET_ID FIREBASE_DATASET_ID POSTHOG_AGGREGATED_DATASET_ID; do
    check $variable '[A-Za-z0-9_]+' "a dataset name of letters, digits and underscores"
  done
  check BIGQUERY_SECRET_NAME '[A-Za-z0-9_-]*' "the short name of a secret, or empty"
  check CPU '[1-8]' "a number of vCPUs"
  check MEMORY '[0-9]+(Mi|Gi)' "a size, like 2Gi"
  check CONCURRENCY '[1-8]' "1 to 8: the service has eight threads"
  for variable in JOB_TIMEOUT_SECONDS JOB_LEASE_WAIT_SECONDS; do
    check $variable "$number" "a whole number"
  done
  check SETTINGS '([A-Z_]+=[^ |]+ ?)*' "NAME=VALUE pairs, separated by single spaces"
  check SCHEDULE "$cron" "a cron expression of five fields"
  check WEEKLY_FULL_LOAD "($cron)?" "a cron expression of five fields, or empty"
  check TIME_ZONE '[A-Za-z_/+-]+[0-9]*' "a time zone, like Etc/UTC"
  check SCHEDULE_TARGET 'service|job' "service or job"
  check GITHUB_REPOSITORY '([A-Za-z0-9-]+/[A-Za-z0-9._-]+)?' "OWNER/NAME, or empty"
  if [[ ${#PROBLEMS[@]} -gt 0 ]]; then
    fail "$(printf '%s\n' "${PROBLEMS[@]}")"
  fi
}

# continent LOCATION: the continent of a region, or of one of BigQuery's multi-regions.
continent() {
  case ${1,,} in
    us | us-* | northamerica-*) echo america ;;
    eu | europe-*) echo europe ;;
    *) echo "${1%%-*}" ;;
  esac
}

check() {
  local pattern="^($2)$"
  [[ ${!1} =~ $pattern ]] || PROBLEMS+=("$1 must be $3.")
}

# Print a command as a shell would take it.
show() {
  local word line=""
  for word in "$@"; do
    [[ $word =~ ^[A-Za-z0-9_./:=@%+,-]+$ ]] || word="'$word'" # no value holds a single quote
    line+="$word "
  done
  echo "${line% }" >&3
}

# run COMMAND...: show it, and do it unless this is a dry run.
run() {
  show "$@"
  $DRY_RUN || "$@"
}

# attempt COMMAND...: the same, and go on where it fails.
attempt() {
  show "$@"
  $DRY_RUN || "$@" || echo "That failed, and may be so: going on." >&2
}

# ask ANSWER COMMAND...: what the command prints; in a dry run ANSWER.
ask() {
  local answer="$1"
  shift
  show "$@"
  if $DRY_RUN; then echo "$answer"; else "$@"; fi
}

# ensure CHECK... -- CREATE...: make what the first command does not find.
ensure() {
  if_check "! " "$@"
}

# remove CHECK... -- DELETE...: delete what the first command finds.
remove() {
  if_check "" "$@"
}

if_check() {
  local negation="$1" check=()
  shift
  while [[ $1 != -- ]]; do
    check+=("$1")
    shift
  done
  shift
  if $DRY_RUN; then
    echo "if $negation$(show "${check[@]}" 3>&1) >/dev/null 2>&1; then $(show "$@" 3>&1); fi" >&3
  elif "${check[@]}" >/dev/null 2>&1; then
    [[ $negation ]] || run "$@"
  else
    [[ ! $negation ]] || run "$@"
  fi
}
