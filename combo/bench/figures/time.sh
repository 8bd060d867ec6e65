# shellcheck shell=bash
# How long things take and how late they are: the files that ticks write, the first answer, and requests
# beside an app that blocks. For `run`, which has what starts servers, samples them and adds rows.

readonly BULKHEAD_BAR='< 5'
readonly START_BAR='< 50'
readonly MEMORY_BAR='< 16'
readonly TICKS_BAR='< 20'

# Requests to another mount while one with threads of its own blocks all of them.
figure_bulkhead() {
    local framework before before_worst during during_worst
    say 'bulkhead: beside a mount that blocks'
    for framework in "${FRAMEWORKS[@]}"; do
        free_port
        "$work/bulkhead" "$framework" "$port" 5 >"$work/bulkhead.line" || die "no figures of $framework"
        read -r before before_worst during during_worst <"$work/bulkhead.line"
        row "request beside $framework that blocks all its threads: p99, during - before" "p99 $before ms, worst $before_worst ms" \
            "p99 $during ms, worst $during_worst ms" "$(awk -v before="$before" -v during="$during" 'BEGIN { printf "%.2f", during - before }')" ms "$BULKHEAD_BAR"
    done
}

# From nothing to the first answer, and at rest after every mount has answered.
figure_start() {
    local wait
    say 'start: until the first answer, and memory at rest'
    frankenstein_command
    wait=$("$work/first_answer" 20 "$port" /axum/hello/world "${command[@]}")
    row 'start to first answer, median of 20' '' '' "$wait" ms "$START_BAR"
    frankenstein
    row 'memory at rest' '' '' "$(awk -v kib="$(memory "$pid")" 'BEGIN { printf "%.1f", kib / 1024 }')" MiB "$MEMORY_BAR"
    stop "$pid"
}

# The two files that the deployment's jobs replace every four seconds.
figure_ticks() {
    local name missed surplus median worst seen
    say "ticks: $((TICKS * 4)) s"
    frankenstein --workers 1 --log off
    "$work/ticks" "$TICKS" "$root/static/time.txt" "$root/static/pulse.json" >"$work/ticks.lines"
    while read -r name missed surplus median worst seen; do
        row "\`$name\` every 4 s, $TICKS times: missed" '' '' "$missed" '' '≤ 0'
        row "\`$name\` every 4 s, $TICKS times: surplus" '' '' "$surplus" '' '≤ 0'
        row "\`$name\` every 4 s, $TICKS times: latest" '' "median $median ms, readable after $seen ms" "$worst" ms "$TICKS_BAR"
    done <"$work/ticks.lines"
    stop "$pid"
}
