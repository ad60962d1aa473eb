# shellcheck shell=bash
# Points: what is looked at, one line each. What they print goes to the log.

failed=() passed=0

# say FORMAT VALUE…: to the screen and the log.
say() {
    # shellcheck disable=SC2059
    printf "$@" | tee -a "$log"
}

heading() { printf '\n%s\n' "$*" | tee -a "$log"; }

# figure TEXT: shown in the point's line.
figure() { printf '%s' "$*" >&3; }

# point TITLE COMMAND…: runs the command with `set -e`, and says what came of it.
point() {
    local title=$1 status figures since=$SECONDS
    shift
    [[ $title =~ $only || ${needed-} = true ]] || return 0
    printf '\n##### %s\n' "$title" >>"$log"
    set +e
    figures=$(set -e; exec 3>&1 >>"$log" 2>&1; set -x; "$@")
    status=$?
    set -e
    if [ "$status" = 0 ]; then
        passed=$((passed + 1))
        say 'ok      %s%s (%d s)\n' "$title" "${figures:+: $figures}" $((SECONDS - since))
    else
        failed+=("$title")
        tail -n 12 "$log" | sed 's/^/        | /'
        say 'FAILED  %s%s (%d s)\n' "$title" "${figures:+: $figures}" $((SECONDS - since))
    fi
}

# need TITLE COMMAND…: a point that others rely on: it is run whatever was chosen.
need() { local needed=true; point "$@"; }

# until_so SECONDS COMMAND…: waits until the command succeeds.
until_so() {
    local until=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$until" ] || { echo "not within its time: $*" >&2; return 1; }
        sleep 0.5
    done
}

verdict() {
    if [ ${#failed[@]} -gt 0 ]; then
        printf '%d points failed:\n' ${#failed[@]}
        printf '  %s\n' "${failed[@]}"
        return 1
    fi
    printf 'all %d points hold\n' "$passed"
}
