# shellcheck shell=bash
# What the scripts in this folder share: options, configuration, and running or showing a command.

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
  unset SCHEDULE TIME_ZONE SCHEDULE_TARGET CPU MEMORY JOB_TIMEOUT_SECONDS
  # shellcheck source=deploy/config.example.env
  source "$HERE/config.example.env"
  # shellcheck source=/dev/null
  source "$file"
  refuse_outdated
  JOBS_FILE="${JOBS_FILE:-$HERE/../config/jobs.yaml}"
  [[ -f $JOBS_FILE ]] || fail "There is no $JOBS_FILE: correct JOBS_FILE."
  OTHER_JOBS="$(find_jobs any)"
  check_config

  SCHEDULE="$(job_value sessions cron)"
  TIME_ZONE="$(job_value sessions time_zone)"
  SCHEDULE_TARGET="$(job_value sessions mode)"
  CPU="$(job_value sessions cpu)"
  MEMORY="$(job_value sessions memory)"
  RETRIES="$(job_value sessions retries)"
  JOB_TIMEOUT_SECONDS=$((60 * $(job_value sessions timeout_minutes)))

  ACCOUNT_DOMAIN="$PROJECT_ID.iam.gserviceaccount.com"
  GITHUB_POOL=posthog-etl # ours alone: another team may have one called github
  RUNNER="$RUNNER_ACCOUNT@$ACCOUNT_DOMAIN"
  INVOKER="$INVOKER_ACCOUNT@$ACCOUNT_DOMAIN"
  BUILDER="$BUILD_ACCOUNT@$ACCOUNT_DOMAIN"
  WEEKLY_NAME="$SERVICE-weekly-full-load"
  VERIFY_NAME="$SERVICE-weekly-verify"
  BUCKET="gs://${BUILD_BUCKET:-$PROJECT_ID-posthog-etl-build}"
  IMAGE_PATH="$IMAGE"
  [[ $IMAGE == */* ]] || IMAGE_PATH="$REGION-docker.pkg.dev/$PROJECT_ID/$REPOSITORY/$IMAGE"
  IN_PROJECT="--project=$PROJECT_ID"
  IN_REGION="--region=$REGION"
}

# Refuse settings that have moved to config/jobs.yaml: here nothing reads them any more.
refuse_outdated() {
  local name
  for name in SCHEDULE TIME_ZONE SCHEDULE_TARGET CPU MEMORY JOB_TIMEOUT_SECONDS; do
    [[ -z ${!name:-} ]] || fail "$name means nothing any more: remove it, and set it in config/jobs.yaml."
  done
}

# job_value JOB KEY: what config/jobs.yaml says, without quotes. Each value stands on its job's lines.
job_value() {
  awk -v job="$1:" -v key="  $2:" '
    /^[a-z]/ { inside = ($1 == job) }
    inside && index($0, key) == 1 {
      value = substr($0, length(key) + 1)
      gsub(/^ +"?|"? *$/, "", value)
      print value
    }' "$JOBS_FILE"
}

# find_jobs MODE: the jobs besides sessions that are deployed, in this mode or in any.
find_jobs() {
  local job
  awk -F: '/^[a-z]/ && $1 != "sessions" { print $1 }' "$JOBS_FILE" | while read -r job; do
    if [[ $(job_value "$job" deployed) == true && $1 =~ ^(any|$(job_value "$job" mode))$ ]]; then
      echo "$job"
    fi
  done
}

job_name() { echo "$SERVICE-${1//_/-}"; }         # the Cloud Run job of a job
schedule_name() { echo "$SERVICE-${1//_/-}-trigger"; }
account_name() { echo "etl-${1//_/-}"; }           # of a Cloud Run job of its own

# runner_of JOB: the account that it runs as: its own, or the service's.
runner_of() {
  if [[ $(job_value "$1" mode) == job ]]; then
    echo "$(account_name "$1")@$ACCOUNT_DOMAIN"
  else
    echo "$RUNNER"
  fi
}

# job_config JOB SETTINGS|SECRETS: pairs of config.env.
job_config() {
  case "$1_$2" in
    claude_usage_SETTINGS) echo "$CLAUDE_USAGE_SETTINGS" ;;
    claude_usage_SECRETS) echo "$CLAUDE_USAGE_SECRETS" ;;
    dog_breeds_SETTINGS) echo "$DOG_BREEDS_SETTINGS" ;;
    dog_breeds_SECRETS) echo "$DOG_BREEDS_SECRETS" ;;
    tmdb_changes_SETTINGS) echo "$TMDB_CHANGES_SETTINGS" ;;
    tmdb_changes_SECRETS) echo "$TMDB_CHANGES_SECRETS" ;;
  esac
}

# dataset_of JOB: the dataset of its own and the setting that names it, if it has one.
dataset_of() {
  case "$1" in
    claude_usage) echo "CLAUDE_DATASET_ID=$CLAUDE_DATASET_ID" ;;
    dog_breeds) echo "DOG_DATASET_ID=$DOG_DATASET_ID" ;;
  esac
}

# job_settings JOB: its variables, each after a bar.
job_settings() {
  local pair
  for pair in $(dataset_of "$1"); do echo -n "|$pair"; done
  for pair in $(job_config "$1" SETTINGS); do echo -n "|$pair"; done
}

# secret_flags JOB...: the flag that gives their secrets to what is deployed, where there are any.
secret_flags() {
  local job pair list=""
  for job in "$@"; do
    for pair in $(job_config "$job" SECRETS); do list+=",$pair:latest"; done
  done
  [[ ! $list ]] || echo "--set-secrets=${list#,}"
}

# Refuse a configuration whose values are not what they should be, naming all of them.
check_config() {
  PROBLEMS=()
  local name='[a-z][a-z0-9-]{0,61}[a-z0-9]' account='[a-z][a-z0-9-]{4,28}[a-z0-9]' number='[0-9]+'
  local cron='[^ ]+ [^ ]+ [^ ]+ [^ ]+ [^ ]+' variable job
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
  for variable in POSTHOG_DATASET_ID FIREBASE_DATASET_ID POSTHOG_AGGREGATED_DATASET_ID \
    CLAUDE_DATASET_ID DOG_DATASET_ID; do
    check $variable '[A-Za-z0-9_]+' "a dataset name of letters, digits and underscores"
  done
  check BIGQUERY_SECRET_NAME '[A-Za-z0-9_-]*' "the short name of a secret, or empty"
  check CONCURRENCY '[1-8]' "1 to 8: the service has eight threads"
  check JOB_LEASE_WAIT_SECONDS "$number" "a whole number"
  for variable in SETTINGS CLAUDE_USAGE_SETTINGS DOG_BREEDS_SETTINGS TMDB_CHANGES_SETTINGS; do
    check $variable '([A-Z_]+=[^ |]+ ?)*' "NAME=VALUE pairs, separated by single spaces"
    [[ " ${!variable}" != *" ETL_API_KEY="* ]] ||
      PROBLEMS+=("$variable must be without ETL_API_KEY, a secret: see docs/security.md.")
  done
  for variable in CLAUDE_USAGE_SECRETS DOG_BREEDS_SECRETS TMDB_CHANGES_SECRETS; do
    check $variable '([A-Z_]+=[A-Za-z0-9_-]+ ?)*' "VARIABLE=SECRET pairs, separated by single spaces"
  done
  check WEEKLY_FULL_LOAD "($cron)?" "a cron expression of five fields, or empty"
  check WEEKLY_VERIFY "($cron)?" "a cron expression of five fields, or empty"
  check GITHUB_REPOSITORY '([A-Za-z0-9-]+/[A-Za-z0-9._-]+)?' "OWNER/NAME, or empty"
  for job in sessions $OTHER_JOBS; do
    check_job "$job" mode 'service|job' "service or job"
    check_job "$job" cron "$cron" "a cron expression of five fields"
    check_job "$job" time_zone '[A-Za-z_/+-]+[0-9]*' "a time zone, like Etc/UTC"
    check_job "$job" memory '[0-9]+(Mi|Gi)' "a size, like 2Gi"
    check_job "$job" cpu '[1-8]' "a number of vCPUs"
    check_job "$job" timeout_minutes "$number" "a whole number"
    check_job "$job" retries '[0-5]' "a number up to 5"
  done
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

check_job() { # check_job JOB KEY PATTERN WHAT
  local pattern="^($3)$"
  [[ $(job_value "$1" "$2") =~ $pattern ]] || PROBLEMS+=("$1.$2 must be $4: see $JOBS_FILE.")
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

# attempt COMMAND...: as run, and go on if it fails.
attempt() {
  show "$@"
  $DRY_RUN || "$@" || echo "That failed; what it removes may be gone already: going on." >&2
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
