# shellcheck shell=bash
# What TLS costs beside nginx with OpenSSL: handshakes, and requests over connections that are kept. For `run`,
# which has what starts servers, samples them and adds rows.

readonly HANDSHAKES_BAR='≤ 1.00'
readonly SEALED_NGINX_BAR='≤ 0.45'
readonly CERTIFICATES_START_BAR='< 1000'
readonly CERTIFICATES_HANDSHAKE_BAR='≤ 1.05'

# Handshakes with a certificate of P-256, TLS 1.3 and X25519, beside nginx: what one costs in CPU time, so that the bar
# holds on every machine.
figure_handshakes() {
    local scheme=https combo combo_port nginx nginx_port kind round count=$((REQUESTS / 20))
    say 'handshakes: beside nginx'
    make_certificate
    nginx_with_tls
    nginx=$pid nginx_port=$port
    frankenstein --workers 1 --log off
    combo=$pid combo_port=$port
    for ((round = -1; round < ROUNDS; round++)); do
        for kind in full resumed; do
            # shellcheck disable=SC2046 # a word for each process
            shake nginx "$nginx_port" "$nginx $(pgrep -P "$nginx")"
            shake combo "$combo_port" "$combo"
        done
    done
    for kind in full resumed; do
        row "$kind TLS handshake: combo / nginx" "$(cost "nginx-$kind")" "$(cost "combo-$kind")" \
            "$(ratio "$(microseconds "nginx-$kind")" "$(microseconds "combo-$kind")")" '' "$HANDSHAKES_BAR"
    done
    stop "$combo" "$nginx"
}

# Samples what one of `$count` handshakes of the `$kind` costs the server `$1` with the port `$2` and the processes
# `$3`; the first round only warms.
shake() {
    local name=$1-$kind
    ((round >= 0)) || name=warmed
    count "$name" "$count" "$3" "$work/shake" "$count" "$2" "$work/certificate.pem" "$kind"
}

# A folder with 10,000 certificates beside one with a single one: how long the start takes, and what a handshake costs
# by the name of a host, a while after that. The bar leaves room for the noise of CPU time.
figure_certificates() {
    local scheme=http kind=full name many folder count=$((REQUESTS / 20)) round host endpoint
    local -A server=() sealed=()
    say 'certificates: 10,000 beside one'
    for many in 1 10000; do
        folder=$work/certificates-$many
        mkdir "$folder"
        "$work/many_certificates" "$many" "$folder" >>"$work/output"
        free_port
        sealed[$many]=$port endpoint=tls:$folder:tcp:$port:interface=127.0.0.1
        frankenstein_command --listen "$endpoint" --workers 1 --log off
        row "start to first answer, certificates: $many" '' '' \
            "$("$work/first_answer" 5 "$port" /axum/hello/world "${command[@]}")" ms "$CERTIFICATES_START_BAR"
        start "${command[@]}"
        server[$many]=$pid
        answers "$pid" "http://127.0.0.1:$port/axum/hello/world" "$GREETING"
    done
    # By then the keys are parsed, which is done behind the back of who is served.
    sleep 5
    for ((round = -1; round < ROUNDS; round++)); do
        for many in 1 10000; do
            host=host$((many / 2)).example.com
            name=certificates-$many
            ((round >= 0)) || name=warmed
            count "$name" "$count" "${server[$many]}" "$work/shake" "$count" "${sealed[$many]}" \
                "$work/certificates-$many/$host.pem" "$kind" "$host"
        done
    done
    row 'full TLS handshake: 10,000 certificates / one' "$(cost certificates-1)" "$(cost certificates-10000)" \
        "$(ratio "$(microseconds certificates-1)" "$(microseconds certificates-10000)")" '' "$CERTIFICATES_HANDSHAKE_BAR"
    stop "${server[@]}"
}

# The median of the CPU time of the samples `$1`.
microseconds() { cut -d' ' -f3 "$work/$1.samples" | median; }

# A short answer over TLS, beside nginx with TLS in front of the app that is alone and in clear text.
figure_sealed() {
    local scheme=http
    say 'sealed: mounted beside nginx with TLS and the apps'
    make_certificate
    alone
    scheme=https
    beside_nginx_and_alone 'request over TLS' "$SEALED_NGINX_BAR"
}

# Makes `certificate.pem` and `key.pem`, which whoever wants to may trust.
make_certificate() {
    [ ! -e "$work/certificate.pem" ] || return 0
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
        -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=CA:FALSE \
        -keyout "$work/key.pem" -out "$work/certificate.pem" 2>>"$work/output" ||
        die "no certificate: $(tail -n 3 "$work/output")"
}

# Starts nginx with the certificate and sets `$pid` and `$port`.
nginx_with_tls() {
    local folder
    free_port
    folder=$work/nginx-$port
    mkdir "$folder"
    {
        echo 'daemon off; pid nginx.pid; worker_processes 1; events { worker_connections 1024; }'
        echo 'http { access_log off;'
        nginx_temp_paths
        echo "server { listen $(nginx_address); $(nginx_certificate) location / { return 200 '<'; } } }"
    } >"$folder/nginx.conf"
    start nginx -p "$folder" -c "$folder/nginx.conf" -e "$folder/error.log"
    answers "$pid" "https://127.0.0.1:$port/" '<'
}
