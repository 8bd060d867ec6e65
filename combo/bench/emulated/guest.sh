# shellcheck shell=bash
# What is different about `run` in the emulated machine: these take the place of the functions of the same names.

# All is there. The rows are seen outside as soon as they are made.
install_missing() { :; }
build() {
    cp "$EMULATED"/programs/* "$work/"
    ln -s "$EMULATED/table" "$work/table"
}
can_count() { :; }

# Its rows are all that is wanted.
report() { cat "$work/table"; }

# As in `run`, but by the counters of the second processor, which has the processes `$3` for as long as it takes. What
# the machine's time says is nothing.
count() {
    local name=$1 events=$2 pids one before
    read -ra pids <<<"$3"
    shift 3
    for one in "${pids[@]}"; do taskset -a -p -c 1 "$one" >/dev/null; done
    before=$(counters)
    "$@" >"$work/load" 2>&1 || die "$name failed: $(tail -n 3 "$work/load")"
    awk -v n="$events" -v before="$before" '
        { split(before, b); printf "%.0f %.0f 0\n", ($1 - b[1]) / n, ($2 - b[2]) / n }' <<<"$(counters)" >>"$work/$name.samples"
    for one in "${pids[@]}"; do taskset -a -p -c 0 "$one" >/dev/null; done
}

# What the second processor has executed since it was turned on: in user mode, in kernel mode, and what is left out.
counters() { od -An -v -w32 -t u8 "$EMULATED/counters" | sed -n 2p; }

# Memory is measured without a machine like this.
idle_websocket() { :; }
