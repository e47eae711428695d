# First boot: writes files with their checksums on every disk, then reboots. Second boot: reads them back.
verify=
for disk in $(word oxen.disks | tr , ' '); do
    wait_for 20 [ -b "/dev/$disk" ] || fail "/dev/$disk did not appear"
    mkdir -p "/mnt/$disk"
    mount -t ext4 "/dev/$disk" "/mnt/$disk" || fail "cannot mount /dev/$disk"
    cd "/mnt/$disk" || fail "cannot enter /mnt/$disk"
    if [ -f sums ]; then
        verify=1
        md5sum -c sums >/run/sums 2>&1 || fail "$disk: $(grep -v OK /run/sums | head -n 1)"
        echo "disk: $disk read back: $(wc -l <sums) files"
    else
        for n in 1 2 3 4 5 6 7 8; do
            mkdir -p "d$n"
            dd if=/dev/urandom of="d$n/random" bs=64k count=8 2>/dev/null || fail "$disk: cannot write"
            seq 1 $((n * 3000)) >"d$n/numbers" || fail "$disk: cannot write"
        done
        dd if=/dev/zero of=large bs=1M count=12 conv=fsync 2>/dev/null || fail "$disk: cannot write"
        rm -r d8
        md5sum d*/* large >sums
        sync
        echo "disk: $disk written"
    fi
    cd /
    umount "/mnt/$disk" || fail "cannot unmount /dev/$disk"
done
[ -n "$verify" ] && ok
: >/run/reboot
exit 0
