# shellcheck shell=bash
# What clients that are rude cost, and when those that are too slow are let go. For `run`, which has what
# starts servers and adds rows.

readonly FLOOD_CPU_BAR='< 0.5'
readonly FLOOD_MEMORY_BAR='< 8'
readonly FLOOD_WAIT_BAR='< 50'
readonly BYSTANDER_BAR='< 10'

# A hundred thousand of what each flood consists of, or fewer if it is ended sooner.
figure_floods() {
    local name sent end cpu memory longest waited=0 line
    say 'floods'
    frankenstein --workers 1 --log off
    "$work/flood" "$port" "$pid" >"$work/flood.lines" || die "no figures of floods"
    while IFS=$'\t' read -r name sent end cpu memory longest; do
        row "flood, $name: CPU time" '' "$sent sent, ${end,,}" "$cpu" s "$(flood_bar "$name")"
        row "flood, $name: memory added" '' '' "$(awk -v kib="$memory" 'BEGIN { printf "%.1f", kib / 1024 }')" MiB "$FLOOD_MEMORY_BAR"
        waited=$(printf '%s\n' "$waited" "$longest" | sort -g | tail -n 1)
    done <"$work/flood.lines"
    row 'flood: longest wait of a bystander, of all floods' '' '' "$waited" ms "$FLOOD_WAIT_BAR"
    stop "$pid"
}

# What is a request each, and not a small one, has no bar.
flood_bar() { [ "$1" = ranges ] || echo "$FLOOD_CPU_BAR"; }

# One of each kind of client that keeps us waiting, all at once.
figure_evictions() {
    local name deadline seconds
    say 'evictions: over a minute'
    frankenstein --workers 1 --log off
    "$work/evict" "$port" >"$work/evict.lines" || die "no figures of evictions"
    while IFS=$'\t' read -r name deadline seconds; do
        row "let go: $name" "deadline $deadline s" '' "$seconds" s "< $((deadline + 2))"
    done <"$work/evict.lines"
    stop "$pid"
}

# Requests beside many that wait and many that drip.
figure_bystander() {
    local waits
    say "bystander: $IDLE idle, $((IDLE / 10)) dripping"
    frankenstein --workers 1 --log off
    hold_open "$IDLE" "$port" /axum/hello/world
    waits=$("$work/drip" $((IDLE / 10)) "$port" 9) || die "no figures of a bystander"
    row "request beside $IDLE idle and $((IDLE / 10)) dripping connections: p99" '' "median ${waits#* } ms" "${waits% *}" ms "$BYSTANDER_BAR"
    stop "$holder" "$pid"
}
