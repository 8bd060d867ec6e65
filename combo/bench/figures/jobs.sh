# shellcheck shell=bash
# What jobs cost and how late they are: one among many, very many, many at one instant, and one beside load.
# For `run`, which has what starts servers, samples them and adds rows.

readonly JOBS_BAR='≤ 1.05'
readonly CROWD_TIME_BAR='< 5'
readonly CROWD_MEMORY_BAR='< 1024'
readonly CROWD_IDLE_BAR='< 1'
readonly LATE_MEDIAN_BAR='< 0.3'
readonly LATE_BAR='< 2'
readonly LATE_LOADED_BAR='< 20'
readonly BURST_BAR='< 1000'
readonly BURST_REQUEST_BAR='< 5'
readonly EVERY_BAR='< 1000'
readonly ZONED_BAR='< 5000'
readonly CHANGE_BAR='< 200'

# A tick of a job among many.
figure_jobs() {
    local others round seconds=2 pid_of=()
    say 'jobs: one among many'
    for others in 10 100000; do
        output=$work/jobs-$others start "$work/many_jobs" "$others" often
        pid_of[others]=$pid
        wait_for "$pid" started "$work/jobs-$others"
    done
    for ((round = 0; round < ROUNDS; round++)); do
        for others in 10 100000; do
            count "jobs-$others" $((seconds * 1000 / 5)) "${pid_of[others]}" sleep "$seconds"
        done
    done
    compare 'tick: 100,000 other jobs / 10' jobs-10 jobs-100000 "$JOBS_BAR"
    stop "${pid_of[@]}"
}

# As many jobs as nobody has: to add and start one, to hold it, and to wait for it.
figure_crowd() {
    local count crowd=100000 seconds=10 pid_of=() memory_of=() ticked_of=() used_of=() made started
    say "crowd: $crowd jobs"
    for count in 10 $crowd; do
        output=$work/crowd-$count start "$work/many_jobs" "$count" "$seconds"
        pid_of[count]=$pid
        wait_for "$pid" started "$work/crowd-$count"
        memory_of[count]=$(memory "$pid")
    done
    for count in 10 $crowd; do
        until_said "${pid_of[count]}" used "$work/crowd-$count"
        used_of[count]=$(sed -n 's/^used //p' "$work/crowd-$count")
        until_said "${pid_of[count]}" ticked "$work/crowd-$count"
        ticked_of[count]=$(memory "${pid_of[count]}")
    done
    stop "${pid_of[@]}"
    read -r made started < <(sed -n 's/^started //p' "$work/crowd-$crowd")
    row "job, one of $crowd: made and planned" '' '' "$made" µs "$CROWD_TIME_BAR"
    row "job, one of $crowd: started" '' '' "$started" µs "$CROWD_TIME_BAR"
    row "job, one of $crowd: memory, started" '' '' "$(each "${memory_of[10]}" "${memory_of[crowd]}" "$crowd")" B "$CROWD_MEMORY_BAR"
    row "job, one of $crowd: memory, after a tick" '' '' "$(each "${ticked_of[10]}" "${ticked_of[crowd]}" "$crowd")" B "$CROWD_MEMORY_BAR"
    row "$crowd jobs, idle for $seconds s: CPU time, less that of 10" "${used_of[10]} ms" "${used_of[crowd]} ms" \
        "$(awk -v ten="${used_of[10]}" -v all="${used_of[crowd]}" 'BEGIN { printf "%.2f", all - ten }')" ms "$CROWD_IDLE_BAR"
}

# The bytes that each of `$3` adds between `$1` and `$2` KiB.
each() { awk -v few="$1" -v many="$2" -v n="$3" 'BEGIN { printf "%.0f", (many - few) * 1024 / n }'; }

# Waits for as long as it takes until the process `$1` has written `$2` into the file `$3`.
until_said() {
    until grep -qs "^$2" "$3"; do
        kill -0 "$1" 2>/dev/null || die "no \`$2\`: $(tail -n 3 "$3")"
        sleep 0.1
    done
}

# By the ledger: with nothing else to do, then with all processors busy and requests to every worker.
figure_late() {
    local spinning=() processor
    say "late: twice $((TICKS * 4)) s"
    late 'idle' "$LATE_BAR" "$LATE_MEDIAN_BAR"
    for ((processor = 0; processor < $(nproc); processor++)); do
        start bash -c 'while :; do :; done'
        spinning+=("$pid")
    done
    late 'all busy' "$LATE_LOADED_BAR" ''
    stop "${spinning[@]}"
}

# Adds rows of how late ticks are while `$1`: the worst held to the bar `$2`, the median to `$3`. It is loaded
# with requests if the median has no bar.
late() {
    local what=$1 bar=$2 median_bar=$3 folder=$work/late-${1// /-} watched name missed surplus median worst
    free_port
    mkdir "$folder"
    output=$folder/lines start "$work/late" "$TICKS" "$port" "$folder"
    watched=$pid
    if [ -z "$median_bar" ]; then
        answers "$watched" "http://127.0.0.1:$port/axum/hello/world" "$GREETING"
        h2load "${options[@]}" -t1 -c "$CONNECTIONS" -D $((TICKS * 4)) "http://127.0.0.1:$port/axum/hello/world" >"$work/load" 2>&1 ||
            die "h2load failed: $(tail -n 3 "$work/load")"
    fi
    wait "$watched" || die "no figures of ticks: $(tail -n 3 "$folder/lines")"
    unset "started[$watched]"
    while read -r name missed surplus median worst; do
        [ "$name" = file ] && name="$what, a file written" || name=$what
        row "\`every 4s\`, $TICKS times, $name: missing or twice" '' '' $((missed + surplus)) '' '≤ 0'
        row "\`every 4s\`, $TICKS times, $name: lateness, median" '' '' "$median" ms "$median_bar"
        row "\`every 4s\`, $TICKS times, $name: lateness, worst" '' '' "$worst" ms "$bar"
    done <"$folder/lines"
}

# Many that are due at one instant, and the requests meanwhile.
figure_burst() {
    local count=10000 lost took before during folder=$work/burst-root
    say "burst: $count ticks at one instant"
    free_port
    mkdir "$folder"
    "$work/burst" "$count" "$port" "$folder" >"$folder/line" || die 'no figures of a burst'
    read -r lost took before during <"$folder/line"
    row "$count ticks at one instant: lost" '' '' "$lost" '' '≤ 0'
    row "$count ticks at one instant: until the last has ended" '' '' "$took" ms "$BURST_BAR"
    row "$count ticks at one instant: slowest request, during - before" "$before ms" "$during ms" \
        "$(awk -v before="$before" -v during="$during" 'BEGIN { printf "%.2f", during - before }')" ms "$BURST_REQUEST_BAR"
}

# To find the next due instant.
figure_instants() {
    local nanoseconds said bar
    say 'instants: the next of a schedule'
    "$work/instants" 100000 >"$work/instants.lines" || die 'no figures of instants'
    while read -r nanoseconds said; do
        [[ $said == *' in '* ]] && bar=$ZONED_BAR || bar=$EVERY_BAR
        row "the next instant of \`$said\`" '' '' "$nanoseconds" ns "$bar"
    done <"$work/instants.lines"
}

# A tick that writes a small file, where bringing it to the disk costs nothing.
figure_change() {
    local folder round cost ticks
    say 'change: a tick with a small file'
    for ((round = 0; round < ROUNDS; round++)); do
        folder=$(mktemp -d -p /dev/shm)
        "$work/change" 2000 "$folder" >"$work/change.line" || { rm -rf "$folder"; die 'no figures of a change'; }
        rm -rf "$folder"
        read -r cost ticks <"$work/change.line"
        echo "$cost" >>"$work/change.costs"
    done
    row "tick with one small file: CPU time, one of $ticks" '' '' "$(median <"$work/change.costs")" µs "$CHANGE_BAR"
}
