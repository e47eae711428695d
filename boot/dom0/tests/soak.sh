# Load of every kind at once for `oxen.seconds`, with a watch on the clock.
seconds=$(word oxen.seconds)
end=$(($(cut -d. -f1 /proc/uptime) + ${seconds:-1800}))
running() { [ "$(cut -d. -f1 /proc/uptime)" -lt $end ]; }
forks() { while running; do i=0; while [ $i -lt 50 ]; do busybox true || echo "exec" >>/run/soak; i=$((i + 1)); done; done; }
disks() {
    disk=$1
    mkdir -p "/mnt/$disk" && mount -t ext4 "/dev/$disk" "/mnt/$disk" || { echo "mount $disk" >>/run/soak; return; }
    while running; do
        dd if=/dev/urandom of="/mnt/$disk/soak" bs=64k count=64 2>/dev/null
        sum=$(md5sum <"/mnt/$disk/soak"); sync; echo 3 >/proc/sys/vm/drop_caches
        [ "$(md5sum <"/mnt/$disk/soak")" = "$sum" ] || echo "$disk differs" >>/run/soak
    done
    rm -f "/mnt/$disk/soak"; umount "/mnt/$disk"
}
network() {
    expected=$(seq 1 200000 | md5sum)
    udhcpc -i "$1" -s /etc/udhcpc.sh -n -q -t 8 -T 2 >/dev/null 2>&1 || { echo "no lease on $1" >>/run/soak; return; }
    net=$(ip -4 addr show dev "$1" | sed -n 's/.*inet \([0-9]*\.[0-9]*\.[0-9]*\)\..*/\1/p')
    while running; do
        [ "$(nc "$net.100" 80 </dev/null | md5sum)" = "$expected" ] || echo "transfer on $1" >>/run/soak
    done
}
# The wall clock without the time since boot, in seconds; nothing when the two were not read at about the same time, because the host was busy.
since_boot() {
    before=$(date +%s); up=$(cut -d. -f1 /proc/uptime); after=$(date +%s)
    [ $((after - before)) -gt 1 ] || echo $((before - up))
}
clock() {
    offset=
    while running; do
        now=$(since_boot)
        offset=${offset:-$now}
        step=$((${now:-$offset} - offset))
        { [ $step -ge -2 ] && [ $step -le 2 ]; } || { echo "clock stepped $step s" >>/run/soak; offset=$now; }
        sleep 1
    done
}
: >/run/soak
forks & forks & clock &
for disk in $(word oxen.disks | tr , ' '); do wait_for 20 [ -b "/dev/$disk" ]; disks "$disk" & done
network eth0 &
while running; do
    sleep 30
    echo "soak: $((end - $(cut -d. -f1 /proc/uptime))) s left, load $(cut -d' ' -f1-3 /proc/loadavg), $(wc -l </run/soak) errors"
done
wait
[ ! -s /run/soak ] || fail "$(wc -l </run/soak) errors, the first: $(head -n 1 /run/soak)"
ok
