#!/bin/sh
# The audit of one day: creates its RayJob, waits for its end, then runs the gate, which are this script's arguments.
#
# The RayJob is named after the day. Who comes second (a retry of this pod, a person, a schedule that fired twice) finds
# it and waits for the same one; the API server alone decides who was first.
#
# Exit codes: 1 the RayJob failed or is gone, 75 the API server did not answer (worth another try), 143 terminated;
# else the gate's, 3 where a limit is not kept.
set -eu
date=${CSRM_DATE:-$(date -u -d yesterday +%F)}
name=csrm-score-$date
poll_s=${CSRM_POLL_S:-30}
max_failures=20
here=$(dirname "$0")
work=$(mktemp -d)
trap 'exit 143' TERM
trap 'rm -rf "$work"' EXIT

say() {
    echo "$(date -u +%FT%TZ) $name: $*"
}

create() {
    sed -e "s/^  name: csrm-score\$/  name: $name/" -e "s/--date yesterday/--date $date/" \
        "$here/ray-job.score.yaml" > "$work/ray-job.yaml"
    # Under its plain name, or with a day that moves while it runs, a job would not be this day's.
    if ! grep -q "^  name: $name\$" "$work/ray-job.yaml" || ! grep -q -e "--date $date" "$work/ray-job.yaml"; then
        say "ray-job.score.yaml has no 'name: csrm-score' or no '--date yesterday' to fill in"
        exit 2
    fi
    if kubectl --request-timeout=30s create -f "$work/ray-job.yaml" > "$work/said" 2>&1; then
        say created
    elif grep -q AlreadyExists "$work/said"; then
        say "there already; waiting for it"
    elif grep -q -e Forbidden -e Invalid -e BadRequest -e 'unknown field' -e 'no matches for kind' "$work/said"; then
        say "refused: $(cat "$work/said")"
        exit 2
    else
        say "not created: $(cat "$work/said")"
        exit 75
    fi
}

status() {
    kubectl --request-timeout=30s get rayjob "$name" \
        -o 'jsonpath={.status.jobDeploymentStatus}/{.status.jobStatus}' 2> "$work/said"
}

failed() {
    say "$1; to run it again: kubectl -n csrm delete rayjob $name, then create a job of this CronJob"
    exit 1
}

await() {
    failures=0
    while [ "$failures" -lt "$max_failures" ]; do
        if now=$(status); then
            failures=0
            case $now in
                Complete/SUCCEEDED) say done && return ;;
                Complete/* | Failed/*) failed "ended as $now" ;;
            esac
        elif grep -q NotFound "$work/said"; then
            failed gone
        else
            failures=$((failures + 1))
        fi
        # In the background, so that SIGTERM need not wait for it.
        sleep "$poll_s" &
        wait $!
    done
    say "no answer: $(cat "$work/said")"
    exit 75
}

create
await
for argument; do
    shift
    set -- "$@" "$(echo "$argument" | sed "s/{date}/$date/g")"
done
"$@"
