# Every processor works, alone and all at once, and can be taken offline and back.
cpus=$(nproc)
expected=$(seq 1 20000 | md5sum)
for cpu in $(seq 0 $((cpus - 1))); do
    for round in 1 2 3; do
        taskset -c "$cpu" sh -c 'seq 1 20000 | md5sum' >"/run/smp.$cpu.$round" &
    done
done
wait
for file in /run/smp.*; do
    [ "$(cat "$file")" = "$expected" ] || fail "wrong result in $file"
done
cpu=1
while [ $cpu -lt "$cpus" ]; do
    echo 0 >/sys/devices/system/cpu/cpu$cpu/online || fail "cannot take processor $cpu offline"
    [ "$(nproc)" = $((cpus - 1)) ] || fail "processor $cpu is still counted"
    echo 1 >/sys/devices/system/cpu/cpu$cpu/online || fail "cannot bring processor $cpu back"
    taskset -c $cpu true || fail "processor $cpu does not work after coming back"
    cpu=$((cpu + 1))
done
ok
