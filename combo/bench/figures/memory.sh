# shellcheck shell=bash
# What is held: by connections that wait, and while much is uploaded. For `run`, which has what starts
# servers and adds rows.

readonly CONNECTION_BAR='≤ 12'
readonly UPLOAD_BAR='< 8'

# What connections that wait for their next request hold.
figure_connections() {
    local framework beside combo
    say "connections: $IDLE idle"
    for framework in "${FRAMEWORKS[@]}"; do
        alone
        hold "$IDLE" "${alone_pid[$framework]}" "${alone_port[$framework]}" /hello/world
        beside=$held
        stop "${alone_pid[@]}"
        frankenstein --workers 1 --log off
        combo=$pid
        hold "$IDLE" "$combo" "$port" "/$framework/hello/world"
        stop "$combo"
        row "idle connection: $framework, one of $IDLE" "$beside KiB" '' "$held" KiB "$CONNECTION_BAR"
    done
}

# Sets `$held` to the KiB that each of `$1` connections adds to the process `$2` on the port `$3`, after
# it was asked for the path `$4`, as a websocket if `$5` says so.
hold() {
    local before after descriptors holder
    before=$(memory "$2")
    hold_open "$1" "${@:3}"
    after=$(memory "$2")
    descriptors=("/proc/$2/fd/"*)
    [ ${#descriptors[@]} -gt "$1" ] || die "not all of $1 connections were still open: ${#descriptors[@]}"
    held=$(awk -v before="$before" -v after="$after" -v n="$1" 'BEGIN { printf "%.1f", (after - before) / n }')
    stop "$holder"
}

# Starts what keeps `$1` connections to the port `$2` open, as above, and sets `$holder` to it.
hold_open() {
    local serves=$pid
    output=$work/hold-$2 start "$work/hold" "$@"
    holder=$pid pid=$serves
    wait_for "$holder" holding "$work/hold-$2"
}

# What a form with one large file needs while it is taken apart.
figure_upload() {
    local framework before answer
    say "upload: $UPLOAD MiB"
    truncate --size "${UPLOAD}M" "$work/zeros"
    for framework in "${FRAMEWORKS[@]}"; do
        frankenstein --workers 1 --log off
        before=$(memory "$pid")
        echo 5 >"/proc/$pid/clear_refs" # the peak begins here
        answer=$(curl --silent --fail --max-time 300 --form "file=@$work/zeros" \
            --write-out ' %{time_total}' "http://127.0.0.1:$port/$framework/upload") || die "$framework did not take the upload"
        [[ $answer == *"\"size\":$((UPLOAD << 20))}"* ]] || die "not all of the upload came: $answer"
        row "upload of $UPLOAD MiB: $framework, memory added" '' "$(printf 'in %.1f s' "${answer##*] }")" \
            "$(awk -v before="$before" -v peak="$(memory "$pid" VmHWM)" 'BEGIN { printf "%.1f", (peak - before) / 1024 }')" MiB "$UPLOAD_BAR"
        stop "$pid"
    done
}
