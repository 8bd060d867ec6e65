# shellcheck shell=bash
# What talking over a websocket costs, and what one that is silent holds: mounted beside alone. For
# `run`, which has what starts servers, samples them and adds rows.

readonly MESSAGE_BAR='≤ 1.05'
readonly WEBSOCKET_BAR='≤ 1.00'

figure_websockets() {
    local combo combo_port framework round
    say 'websockets: mounted beside alone'
    alone
    frankenstein --workers 1 --log off
    combo=$pid combo_port=$port
    for ((round = 0; round < ROUNDS; round++)); do
        for framework in "${FRAMEWORKS[@]}"; do
            talk "alone-$framework-message" "${alone_pid[$framework]}" "${alone_port[$framework]}" /ws
            talk "mounted-$framework-message" "$combo" "$combo_port" "/$framework/ws"
        done
    done
    for framework in "${FRAMEWORKS[@]}"; do
        compare "websocket message: $framework, mounted / alone" "alone-$framework-message" "mounted-$framework-message" "$MESSAGE_BAR"
    done
    stop "$combo" "${alone_pid[@]}"
    for framework in "${FRAMEWORKS[@]}"; do
        idle_websocket "$framework"
    done
}

# Appends to the samples `$1` what a message to the process `$2` on the port `$3`, path `$4`, costs it.
talk() {
    local messages=$((REQUESTS / CONNECTIONS))
    count "$1" $((messages * CONNECTIONS)) "$2" "$work/talk" "$CONNECTIONS" "$messages" "$3" "$4"
}

# Every server is new, so that none has kept what it needed for the websockets before.
idle_websocket() {
    local framework=$1 count=1000 combo round
    for ((round = 0; round < ROUNDS; round++)); do
        alone
        hold "$count" "${alone_pid[$framework]}" "${alone_port[$framework]}" /ws websocket
        echo "$held" >>"$work/alone-$framework-held"
        stop "${alone_pid[@]}"
        frankenstein --workers 1 --log off
        combo=$pid
        hold "$count" "$combo" "$port" "/$framework/ws" websocket
        echo "$held" >>"$work/mounted-$framework-held"
        stop "$combo"
    done
    compare_held "idle websocket: $framework, mounted / alone" "$work/alone-$framework-held" "$work/mounted-$framework-held"
}

# Adds a row that compares the KiB in the file `$3` with those in the file `$2`.
compare_held() {
    local beside combo
    beside=$(median <"$2")
    combo=$(median <"$3")
    row "$1" "$beside KiB" "$combo KiB" "$(ratio "$beside" "$combo")" '' "$WEBSOCKET_BAR"
}
