# shellcheck shell=bash
# What a request costs: mounted beside the same app alone, beside nginx in front of it, and beside other
# requests to combo. For `run`, which has what starts servers, samples them and adds rows.

declare -rA HELLO_BARS=([axum]='≤ 0.92' [warp]='≤ 1.00' [actix]='≤ 1.06')
declare -rA BODY_BARS=([axum]='≤ 1.02' [warp]='≤ 1.02' [actix]='≤ 1.02')
readonly NGINX_BAR='≤ 0.50'
readonly NGINX_MEAN_BAR='≤ 0.33'
readonly MOUNTS_BAR='≤ 1.02'

# A short answer over HTTP/1.1, beside the app's framework's own server.
figure_requests() {
    say 'requests: mounted beside alone'
    mounted_beside_alone /hello/world request HELLO_BARS
}

# The least that axum's app costs a server that is built on hyper, which is how much of its bar is left for combo.
figure_least() {
    local side round
    local -A pid_of=() url=()
    say 'least: plain hyper beside alone'
    for side in alone least told; do
        free_port
        case $side in
            alone) start "$work/alone-axum" "$port" 1 ;;
            least) start "$work/least" "$port" ;;
            told) start "$work/least" "$port" told ;;
        esac
        pid_of[$side]=$pid url[$side]=http://127.0.0.1:$port/hello/world
        [ "$side" != told ] || url[told]=http://127.0.0.1:$port/axum/hello/world
        answers "$pid" "${url[$side]}" "$GREETING"
        warm "${url[$side]}"
    done
    for ((round = 0; round < ROUNDS; round++)); do
        for side in alone least told; do
            sample "least-$side" "${url[$side]}" "${pid_of[$side]}"
        done
    done
    compare 'request: axum, plain hyper / alone' least-alone least-least ''
    compare 'request: axum, plain hyper that tells what combo tells / alone' least-alone least-told ''
    stop "${pid_of[@]}"
}

# What `figure_requests` asks, over HTTP/2: by clients that know before that it is spoken.
figure_http2() {
    local protocol=h2c options=(-m8)
    say 'http2: mounted beside alone'
    mounted_beside_alone /hello/world 'request over HTTP/2' HELLO_BARS
}

# The same over TLS.
figure_tls() {
    local scheme=https
    say 'tls: mounted beside alone'
    make_certificate
    mounted_beside_alone /hello/world 'request over TLS' HELLO_BARS
}

# An answer in JSON.
figure_json() {
    say 'json: mounted beside alone'
    mounted_beside_alone /json 'JSON' BODY_BARS
}

# A body that comes and goes.
figure_echo() {
    local REQUESTS=$((REQUESTS / 100)) options=(--h1 "--data=$work/mebibyte")
    say 'echo: mounted beside alone'
    head -c 1M /dev/zero >"$work/mebibyte"
    mounted_beside_alone /echo '1 MiB echoed' BODY_BARS
}

# An answer in many small pieces, all of which are there at once.
figure_events() {
    local REQUESTS=$((REQUESTS / 10))
    say 'events: mounted beside alone'
    mounted_beside_alone '/stream?count=100&every=0' '100 events' BODY_BARS
}

# A short answer, beside nginx in front of the apps that are alone: its processes and the app's together.
figure_nginx() {
    local framework ratios=()
    say 'nginx: mounted beside nginx and the apps'
    alone
    beside_nginx_and_alone request "$NGINX_BAR"
    for framework in "${FRAMEWORKS[@]}"; do
        ratios+=("$(ratio "$(price "nginx-request-$framework")" "$(price "one-request-$framework")")")
    done
    row 'request: mean of the three, mounted / nginx and alone' '' '' "$(printf '%s\n' "${ratios[@]}" | mean)" '' "$(held_to "$NGINX_MEAN_BAR")"
}

# Samples what a short answer costs combo, and nginx with the apps that are alone behind it, both over the scheme, and
# adds a row for each app: `$1` says what is asked for, `$2` is the bar. Stops all of them.
beside_nginx_and_alone() {
    local what=$1 name=${1// /-} bar=$2 combo combo_port nginx nginx_port framework round
    nginx_before_alone
    nginx=$pid nginx_port=$port
    frankenstein --workers 1 --log off
    combo=$pid combo_port=$port
    for framework in "${FRAMEWORKS[@]}"; do
        warm "$scheme://127.0.0.1:$nginx_port/$framework/hello/world"
        warm "$scheme://127.0.0.1:$combo_port/$framework/hello/world"
    done
    for ((round = 0; round < ROUNDS; round++)); do
        for framework in "${FRAMEWORKS[@]}"; do
            # shellcheck disable=SC2046 # a word for each process
            sample "nginx-$name-$framework" "$scheme://127.0.0.1:$nginx_port/$framework/hello/world" \
                "$nginx" $(pgrep -P "$nginx") "${alone_pid[$framework]}"
            sample "one-$name-$framework" "$scheme://127.0.0.1:$combo_port/$framework/hello/world" "$combo"
        done
    done
    for framework in "${FRAMEWORKS[@]}"; do
        compare "$what: $framework, mounted / nginx and alone" "nginx-$name-$framework" "one-$name-$framework" "$bar"
    done
    stop "$combo" "$nginx" "${alone_pid[@]}"
}

# Starts nginx in front of the apps that are alone, with TLS if that is the scheme, and sets `$pid` and `$port`.
nginx_before_alone() {
    local framework folder
    free_port
    folder=$work/nginx-$port
    mkdir "$folder"
    nginx_conf >"$folder/nginx.conf"
    start nginx -p "$folder" -c "$folder/nginx.conf" -e "$folder/error.log"
    for framework in "${FRAMEWORKS[@]}"; do
        answers "$pid" "$scheme://127.0.0.1:$port/$framework/hello/world" "$GREETING"
        answers "$pid" "$scheme://127.0.0.1:$port/$framework/json" "\"$framework\""
    done
}

# What it listens on, and what it shows there.
nginx_address() {
    if [ "$scheme" = https ]; then echo "127.0.0.1:$port ssl"; else echo "127.0.0.1:$port"; fi
}
nginx_certificate() {
    [ "$scheme" = https ] || return 0
    echo "ssl_certificate $work/certificate.pem; ssl_certificate_key $work/key.pem;"
    echo 'ssl_protocols TLSv1.2 TLSv1.3; ssl_ecdh_curve X25519; ssl_session_tickets on;'
}

# As a careful operator has it: connections to the apps are kept and nothing is logged. Connections
# are not closed after so many requests either, so that none is lost to opening new ones.
nginx_conf() {
    local framework
    cat <<END
daemon off;
pid nginx.pid;
worker_processes 1;
events { worker_connections 1024; }
http {
    access_log off;
    keepalive_requests 100000000;
END
    nginx_temp_paths
    for framework in "${FRAMEWORKS[@]}"; do
        cat <<END
    upstream $framework {
        server 127.0.0.1:${alone_port[$framework]};
        keepalive 64;
        keepalive_requests 100000000;
    }
END
    done
    echo "  server { listen $(nginx_address); $(nginx_certificate)"
    for framework in "${FRAMEWORKS[@]}"; do
        cat <<END
        location /$framework/ {
            proxy_pass http://$framework/;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host \$host;
            proxy_set_header X-Forwarded-For \$proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto \$scheme;
            proxy_set_header X-Forwarded-Prefix /$framework;
        }
END
    done
    echo '  }'
    echo '}'
}

# So that nothing is written outside the folder of its configuration.
nginx_temp_paths() {
    local kind
    for kind in client_body proxy fastcgi uwsgi scgi; do
        echo "    ${kind}_temp_path $kind;"
    done
}

# A request to a mount among many.
figure_mounts() {
    local others round port_of=() pid_of=()
    say 'mounts: one among many'
    for others in 3 1000 10000; do
        free_port
        start "$work/many_mounts" "$port" "$others"
        answers "$pid" "http://127.0.0.1:$port/axum/hello/world" "$GREETING"
        warm "http://127.0.0.1:$port/axum/hello/world"
        port_of[others]=$port pid_of[others]=$pid
    done
    for ((round = 0; round < ROUNDS; round++)); do
        for others in 3 1000 10000; do
            sample "among-$others" "http://127.0.0.1:${port_of[others]}/axum/hello/world" "${pid_of[others]}"
        done
    done
    compare 'request: 1,000 other mounts / 3' among-3 among-1000 "$MOUNTS_BAR"
    compare 'request: 10,000 other mounts / 3' among-3 among-10000 ''
    stop "${pid_of[@]}"
}

# A request that is logged, beside one that is not.
figure_log() {
    local quiet quiet_port url round
    say 'log: with and without'
    frankenstein --workers 1 --log off
    quiet=$pid quiet_port=$port
    output=/dev/null frankenstein --workers 1 --log json
    for url in "http://127.0.0.1:$quiet_port/axum/hello/world" "http://127.0.0.1:$port/axum/hello/world"; do
        warm "$url"
    done
    for ((round = 0; round < ROUNDS; round++)); do
        sample log-off "http://127.0.0.1:$quiet_port/axum/hello/world" "$quiet"
        sample log-json "http://127.0.0.1:$port/axum/hello/world" "$pid"
    done
    compare 'request: axum, logged as JSON / not' log-off log-json ''
    stop "$quiet" "$pid"
}
