#!/usr/bin/env bash
# Stands in for gcloud, bq, docker and curl: keeps what was made in the folder FAKE_CLOUD, and refuses
# what Google would. Making what exists fails, and so does whatever concerns what doesn't, an account
# in a policy included. Each call is logged; a file of `answers` is printed where the command holds
# its name, or, where it holds an exclamation mark, ends the command.
set -euo pipefail

refuse() {
  echo "ERROR: $*" >&2
  exit 1
}

program="${0##*/}"
printf '%s\x1f' "$program" "$@" >>"$FAKE_CLOUD/log"
printf '\x1e' >>"$FAKE_CLOUD/log"

words=()
for argument in "$@"; do
  [[ $argument == --* ]] || words+=("$argument")
  if [[ $argument =~ ^--member=serviceAccount:([a-z0-9-]+)@ ]]; then
    [[ -e "$FAKE_CLOUD/things/iam service-accounts ${BASH_REMATCH[1]}" ]] ||
      refuse "there is no account ${BASH_REMATCH[1]}"
  fi
done

gcloud_does() {
  local group="" verb="" name="any" word rest
  for word in "${words[@]}"; do
    case "$word" in
      create | create-oidc | update-oidc | deploy | add | describe | list | update | update-traffic | delete | rm | \
        pause | resume | add-iam-policy-binding | remove-iam-policy-binding) verb="$word" && break ;;
      *) group+="$word " ;;
    esac
  done
  [[ $verb ]] || return 0 # enables, submits, prints: nothing is kept
  rest=" ${words[*]} "
  read -r -a rest <<<"${rest#* "$verb" }"
  [[ ${rest[0]:-} != http ]] || rest=("${rest[@]:1}")
  name="${rest[0]:-any}"
  case "$group$verb" in
    "run deploy") group="run services " ;;
    "storage rm") group="storage buckets " ;;
    "secrets versions add") name=latest ;;
  esac
  name="${name%@*}"
  local thing="$FAKE_CLOUD/things/$group${name//[^a-z0-9-]/}"
  case "$verb" in
    create | create-oidc)
      [[ ! -e $thing ]] || refuse "there is a ${thing##*/} already"
      touch "$thing"
      ;;
    deploy | add) touch "$thing" ;;
    list) ;;
    *) [[ -e $thing || $group == projects* ]] || refuse "there is no ${thing##*/}" ;;
  esac
  [[ $verb != delete && $verb != rm ]] || rm "$thing"
}

if [[ $program == gcloud ]]; then
  gcloud_does
fi
for answer in "$FAKE_CLOUD"/answers/*; do
  if [[ -f $answer && "$program $*" == *"${answer##*/}"* ]]; then
    text="$(<"$answer")"
    [[ $text != "!" ]] || refuse "${answer##*/}"
    printf '%s' "$text"
  fi
done
