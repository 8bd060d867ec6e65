# shellcheck shell=bash
# What clients that are rude cost, and when those that are too slow are let go. For `run`, which has what
# starts servers and adds rows.

readonly FLOOD_CPU_BAR='< 0.5'
readonly FLOOD_MEMORY_BAR='< 8'
readonly FLOOD_WAIT_BAR='< 50'
readonly BYSTANDER_BAR='< 10'
readonly GUARD_BAR='≤ 2'

# The part of a request that goes into looking at it and at how its client behaves.
figure_guard() {
    local all ours base offset more part
    say 'guard: what part of a request it is'
    frankenstein --workers 1 --log off
    warm "http://127.0.0.1:$port/axum/hello/world"
    perf record --quiet -e cpu-clock -F 4999 -p "$pid" -o "$work/perf.samples" -- \
        h2load "${options[@]}" -t1 -c "$CONNECTIONS" -n $((2 * REQUESTS)) "http://127.0.0.1:$port/axum/hello/world" >/dev/null
    # Where the program's code is in memory, and where in its file. Addresses of a symbol table are those of the file
    # and so much more.
    read -r base offset < <(perf script -i "$work/perf.samples" --show-mmap-events 2>/dev/null |
        sed -n 's#.*\[\(0x[0-9a-f]*\)(.*) @ \(0x[0-9a-f]*\|0\) .*r-xp .*/frankenstein$#\1 \2#p' | sed 1q)
    more=$(readelf -lW "$work/frankenstein" | awk '$1 == "LOAD" && $0 ~ / R E / { print $3, $2 }')
    all=$(perf script -i "$work/perf.samples" -F ip,dso 2>/dev/null | grep -c .)
    ours=$(perf script -i "$work/perf.samples" -F ip,dso 2>/dev/null | awk '/\/frankenstein\)/ { print $1 }' |
        while read -r ip; do printf '%#x\n' $((0x$ip - base + offset + ${more% *} - ${more#* })); done |
        addr2line -e "$work/frankenstein" -i -a |
        awk '/^0x/ { hit = 0; next } !hit && /\/serve\/(guard|sweep|pace|exchange)\.rs/ { hit = 1; n++ } END { print n + 0 }')
    part=$(awk -v all="$all" -v ours="$ours" 'BEGIN { printf "%.2f", 100 * ours / all }')
    row 'guard and sweep, of all that a request costs' '' "$ours of $all samples" "$part" % "$GUARD_BAR"
    stop "$pid"
}

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
