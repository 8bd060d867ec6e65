# shellcheck shell=bash
# Runs figures in an emulated machine whose every instruction is counted, for where there are no hardware counters.
# For `run`, which is what the machine runs too, with `guest.sh`.
#
# The machine has Debian's kernel, the files of this one, which it cannot change, and two processors: one for the
# servers that are sampled, one for all else. There is no network.

# The figures that are of instructions.
readonly COUNTED=(requests least http2 tls json echo events nginx mounts log websockets files precompressed jobs)
# Debian's kernels before 6.5 send a file page by page.
readonly KERNEL_SUITE=backports

# Runs the figures `$@`, which are built, and takes over their rows.
emulate() {
    local machine
    machine=$(readlink -m "${CARGO_TARGET_DIR:-target}")/emulated
    mkdir -p "$machine" "$work/shared/programs"
    find "$work" -maxdepth 1 -type f -executable -exec mv -t "$work/shared/programs" {} +
    make_kernel
    make_initramfs >"$work/initramfs"
    cc -O2 -shared -fPIC -fvisibility=hidden -o "$work/counters.so" combo/bench/emulated/counters.c
    {
        # shellcheck disable=SC2016 # it is the machine that replaces this
        echo 'cd / && uname -r >"$EMULATED/kernel" && export HOME=/root'
        printf '%q ' "$PWD/combo/bench/run" "$@"
        # shellcheck disable=SC2016
        echo '; echo $? >"$EMULATED/code"'
    } >"$work/shared/command"
    say "in an emulated machine: $*"
    boot || say 'the emulated machine has failed'
    [ ! -e "$work/shared/table" ] || tail -n +3 "$work/shared/table" >>"$work/table"
    [ -e "$work/shared/code" ] || die 'the emulated machine has ended early'
    over=$(cat "$work/shared/code")
}

# Downloads the kernel's package once, with lists of its own, and unpacks it into `$machine/kernel`.
make_kernel() {
    local apt suite name
    [ ! -e "$machine/kernel/boot" ] || return 0
    say "downloading Debian's kernel"
    suite=$(. /etc/os-release && echo "$VERSION_CODENAME")-$KERNEL_SUITE
    rm -rf "$machine/apt"
    mkdir -p "$machine"/apt/{lists/partial,parts}
    echo "deb http://deb.debian.org/debian $suite main" >"$machine/apt/sources"
    apt=(-qq -o "Dir::Etc::sourcelist=$machine/apt/sources" -o "Dir::Etc::sourceparts=$machine/apt/parts"
        -o "Dir::State::lists=$machine/apt/lists")
    apt-get "${apt[@]}" update >&2
    name=$(apt-cache "${apt[@]}" depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-[^ ]*\)/\1/p' | sed 1q)
    (cd "$machine/apt" && apt-get "${apt[@]}" -o APT::Sandbox::User=root download "$name" >&2)
    dpkg-deb -x "$machine/apt/$name"_*.deb "$machine/apt/unpacked"
    mv "$machine/apt/unpacked" "$machine/kernel"
}

# Prints the archive of what the machine starts with: a shell and what it needs to see the files of this one.
make_initramfs() {
    local root=$work/initramfs-root module file number=10
    mkdir -p "$root"/{bin,modules,proc,host,written,root}
    cp "$(command -v busybox)" "$root/bin/busybox"
    cp combo/bench/emulated/init "$root/init"
    # In the order in which they need each other; some are in the kernel already.
    for module in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci netfs 9pnet 9pnet_virtio 9p overlay; do
        file=$(find "$machine/kernel/lib/modules" -name "$module.ko*" -print -quit)
        case $file in
            *.xz) busybox unxz -c "$file" >"$root/modules/$number-$module.ko" ;;
            ?*) cp "$file" "$root/modules/$number-$module.ko" ;;
        esac
        number=$((number + 1))
    done
    (cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null)
}

# Runs the machine until it turns itself off. What it says goes to standard error.
boot() {
    local words=(console=ttyS0 quiet panic=-1 'mitigations=off')
    # The second processor has only what is put there, and the idle task is known by its `hlt`.
    words+=(isolcpus=1 idle=halt)
    timeout 7200 qemu-system-x86_64 -M q35 -accel tcg,thread=multi -cpu max -smp 2 -m 4G \
        -nodefaults -no-user-config -display none -no-reboot -serial stdio \
        -kernel "$machine"/kernel/boot/vmlinuz-* -initrd "$work/initramfs" -append "${words[*]}" \
        -virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap \
        -virtfs "local,path=$work/shared,mount_tag=shared,security_model=none" \
        -plugin "$work/counters.so,counters=$work/shared/counters" </dev/null >&2
}
