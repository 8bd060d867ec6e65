# shellcheck shell=bash
# What a file costs beside nginx, what is held while a large one is sent, and whether many files keep the
# first answer waiting. For `run`, which has what starts servers, samples them and adds rows.

readonly SMALL_FILE_BAR='≤ 0.75'
readonly MIDDLE_FILE_BAR='≤ 1.00'
readonly LARGE_FILE_BAR='≤ 1.10'
readonly NOT_MODIFIED_BAR='≤ 0.75'
readonly DOWNLOAD_BAR='< 2'
readonly READER_BAR='< 64'
readonly TREE_BAR=1.10

# A file over HTTP/1.1, beside nginx with one worker; a small one also beside what plain hyper does with it.
figure_files() {
    say 'files: beside nginx'
    serve_beside_nginx
    free_port
    output=$work/bare.output start "$work/bare" "$port" "$files/kibibyte.bin"
    wait_for "$pid" listening "$work/bare.output"
    serves[bare]=$pid site[bare]=http://127.0.0.1:$port
    dd if="$files/mebibyte.bin" of="$work/part" bs=64K skip=8 count=1 status=none
    file_beside_nginx '1 KiB file' 1 kibibyte.bin 200 "$files/kibibyte.bin" "$SMALL_FILE_BAR"
    file_beside_nginx '64 KiB file' 10 middle.bin 200 "$files/middle.bin" "$MIDDLE_FILE_BAR"
    file_beside_nginx '1 MiB file' 100 mebibyte.bin 200 "$files/mebibyte.bin" "$LARGE_FILE_BAR"
    file_beside_nginx 'file, not modified' 1 kibibyte.bin 304 /dev/null "$NOT_MODIFIED_BAR"
    file_beside_nginx '64 KiB of a 1 MiB file' 10 mebibyte.bin 206 "$work/part" '' 'Range: bytes=524288-589823'
    stop "${serves[combo]}" "${serves[nginx]%% *}" "${serves[bare]}"
    unset 'serves[bare]'
}

# A file that has been compressed before, in the folder beside the one that is asked for.
figure_precompressed() {
    say 'precompressed: beside nginx'
    serve_beside_nginx
    file_beside_nginx 'precompressed file' 1 text.txt 200 "$files/text.txt.gz" '' 'Accept-Encoding: gzip'
    stop "${serves[combo]}" "${serves[nginx]%% *}"
}

# Starts the frankenstein and nginx with the same `$files`, and sets `serves`, the processes of each, and `site`.
declare -A serves site
serve_beside_nginx() {
    local folder
    frankenstein --workers 1 --log off
    serves[combo]=$pid site[combo]=http://127.0.0.1:$port
    files=$root/static
    head -c 1K /dev/urandom >"$files/kibibyte.bin"
    head -c 64K /dev/urandom >"$files/middle.bin"
    head -c 1M /dev/urandom >"$files/mebibyte.bin"
    seq 10000 >"$files/text.txt"
    gzip --keep "$files/text.txt"
    free_port
    folder=$work/nginx-$port
    mkdir "$folder"
    cp -a "$files" "$folder/files"
    nginx_files_conf >"$folder/nginx.conf"
    start nginx -p "$folder" -c "$folder/nginx.conf" -e "$folder/error.log"
    answers "$pid" "http://127.0.0.1:$port/" '<'
    serves[nginx]="$pid $(pgrep -P "$pid")" site[nginx]=http://127.0.0.1:$port
}

# As a careful operator has it. The folder of this run is nobody else's, so its worker stays who we are.
nginx_files_conf() {
    [ "$(id -u)" != 0 ] || echo 'user root;'
    cat <<END
daemon off;
pid nginx.pid;
worker_processes 1;
events { worker_connections 1024; }
http {
    include /etc/nginx/mime.types;
    access_log off;
    etag on;
    gzip_static on;
    keepalive_requests 100000000;
    sendfile on;
    tcp_nopush on;
    server { listen 127.0.0.1:$port; root files; }
END
    nginx_temp_paths
    echo '}'
}

# Samples what a request for the file `$3` costs both, in turns, one in `$2` of the usual number, and adds a row:
# `$1` says what is asked for, `$4` is the status and `$5` a file with the body of the right answer, `$6` the bar, and
# `$7` the header to ask with. Who is to be told that nothing was modified asks with the server's own tag.
file_beside_nginx() {
    local what=$1 file=$3 status=$4 body=$5 bar=$6 header=${7:-Accept: */*} name=${1// /-} side round
    local REQUESTS=$((REQUESTS / $2)) answered=${status:0:1}xx options sides=(nginx combo)
    local -A asks_with=()
    [ -z "${serves[bare]:-}" ] || [ "$file" != kibibyte.bin ] || sides+=(bare)
    for side in "${sides[@]}"; do
        asks_with[$side]=$header
        if [ "$status" = 304 ]; then
            file_answered "${site[$side]}/$file" "$header" 200 "$files/$file"
            asks_with[$side]="If-None-Match: $(sed -n 's/\r$//; s/^etag: //Ip' "$work/head")"
        fi
        file_answered "${site[$side]}/$file" "${asks_with[$side]}" "$status" "$body"
        [[ $body != *.gz ]] || grep -qi '^content-encoding: gzip' "$work/head" ||
            die "${site[$side]}/$file does not say that it is compressed"
        options=(--h1 -H "${asks_with[$side]}")
        warm "${site[$side]}/$file"
    done
    for ((round = 0; round < ROUNDS; round++)); do
        for side in "${sides[@]}"; do
            options=(--h1 -H "${asks_with[$side]}")
            # shellcheck disable=SC2086 # a word for each process
            sample "$side-$name" "${site[$side]}/$file" ${serves[$side]}
        done
    done
    compare "$what: combo / nginx" "nginx-$name" "combo-$name" "$bar"
    if [ "${#sides[@]}" = 3 ]; then
        compare "$what: combo / bare hyper" "bare-$name" "combo-$name" ''
        compare "$what: bare hyper / nginx" "nginx-$name" "bare-$name" ''
    fi
}

# Sees that the URL `$1`, asked with the header `$2`, is answered with the status `$3` and what is in the file `$4`.
# The head of the answer is in `$work/head`.
file_answered() {
    local status
    : >"$work/body" # curl makes none for no body
    status=$(curl --silent --max-time 5 --header "$2" --dump-header "$work/head" --output "$work/body" \
        --write-out '%{http_code}' "$1") || die "$1 did not answer"
    [ "$status" = "$3" ] || die "$1 with \`$2\` answered $status, not $3"
    cmp --silent "$work/body" "$4" || die "$1 with \`$2\` did not answer with what is in $4"
}

# What is held while one client takes a large file, as fast as it can and slower.
figure_download() {
    local size=100 pace before answer
    say "download: $size MiB"
    for pace in '' 20; do
        frankenstein --workers 1 --log off
        head -c "${size}M" /dev/zero >"$root/static/large.bin"
        before=$(memory "$pid")
        echo 5 >"/proc/$pid/clear_refs" # the peak begins here
        answer=$(curl --silent --fail --max-time 300 ${pace:+--limit-rate "${pace}M"} --output /dev/null \
            --write-out '%{size_download} %{time_total}' "http://127.0.0.1:$port/large.bin") || die 'the file was not sent'
        [ "${answer% *}" = $((size << 20)) ] || die "not all of the file came: $answer"
        row "download of $size MiB${pace:+ at $pace MiB a second}: memory added" '' "$(printf 'in %.1f s' "${answer#* }")" \
            "$(awk -v before="$before" -v peak="$(memory "$pid" VmHWM)" 'BEGIN { printf "%.1f", (peak - before) / 1024 }')" MiB "$DOWNLOAD_BAR"
        stop "$pid"
        rm "$root/static/large.bin"
    done
}

# What is held by many clients that take a large file so slowly that each has most of it still before it.
figure_readers() {
    local count=1000 seconds=5 combo readers before peak sockets
    say "readers: $count slow ones"
    frankenstein --workers 1 --log off
    combo=$pid
    head -c 64M /dev/zero >"$root/static/large.bin"
    before=$(memory "$combo")
    echo 5 >"/proc/$combo/clear_refs" # the peak begins here
    output=$work/readers start "$work/slow_readers" "$count" "$port" /large.bin
    readers=$pid
    wait_for "$readers" holding "$work/readers"
    sleep "$seconds"
    kill -0 "$readers" 2>/dev/null || die "not all were served: $(tail -n 3 "$work/readers")"
    sockets=$(find "/proc/$combo/fd" -lname 'socket:*' | wc -l)
    [ "$sockets" -gt "$count" ] || die "not all of $count connections were still open: $sockets"
    peak=$(memory "$combo" VmHWM)
    row "slow reader of a 64 MiB file: memory, one of $count" '' '' \
        "$(awk -v before="$before" -v peak="$peak" -v n="$count" 'BEGIN { printf "%.1f", (peak - before) / n }')" KiB "$READER_BAR"
    stop "$readers" "$combo"
    rm "$root/static/large.bin"
}

# From nothing to the first answer with very many files, beside few.
figure_tree() {
    local many=100000 beside combo few_wait many_wait bar round
    say "tree: a start with $many files"
    frankenstein_command --workers 1 --log off
    beside=("$port" /0/0/5.txt "${command[@]}")
    make_tree "$root/static" 10
    frankenstein_command --workers 1 --log off
    combo=("$port" /0/0/5.txt "${command[@]}")
    make_tree "$root/static" "$many"
    for ((round = 0; round < ROUNDS; round++)); do
        "$work/first_answer" 10 "${beside[@]}" >>"$work/tree-few.waits"
        "$work/first_answer" 10 "${combo[@]}" >>"$work/tree-many.waits"
    done
    few_wait=$(median <"$work/tree-few.waits")
    many_wait=$(median <"$work/tree-many.waits")
    # What rounds of the same differ by is no difference.
    bar=$(awk -v least="$TREE_BAR" -v median="$few_wait" '
        $1 > worst { worst = $1 }
        END { bar = worst / median; if (bar < least) bar = least; printf "≤ %.2f", bar }' "$work/tree-few.waits")
    row 'start to first answer: 100,000 files / 10' "$few_wait ms" "$many_wait ms" "$(ratio "$few_wait" "$many_wait")" '' "$bar"
}

# Makes `$2` empty files in folders of folders in `$1`.
make_tree() {
    (
        cd "$1"
        awk -v n="$2" 'BEGIN { for (i = 0; i < n; i++) printf "%d/%d/%d.txt\n", i / 1000, i / 100 % 10, i }' >"$work/tree"
        sed 's#/[^/]*$##' "$work/tree" | sort -u | xargs mkdir -p
        xargs touch <"$work/tree"
    )
}
