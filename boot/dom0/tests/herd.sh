# Many guests at once, and one guest many times: nothing is left of them.
. /tests/xm-tools.sh
start_stack
count=$(word oxen.guests); cycles=$(word oxen.cycles)
count=${count:-100} cycles=${cycles:-50}
uptime_ms() { read -r up _ </proc/uptime; echo $((${up%.*} * 1000 + (1${up#*.} - 100) * 10)); }
small herd act=obey
sed -i 's/^memory.*/memory = 4/' /etc/xen/herd
n=1
while [ $n -le 3 ]; do
    must create herd name=herd$n
    n=$((n + 1))
done
must destroy herd1 herd2 herd3
remember

start=$(uptime_ms) n=1
while [ $n -le "$count" ]; do
    must create herd name=herd$n
    n=$((n + 1))
done
echo "herd: $count guests in $(($(uptime_ms) - start)) ms"
[ "$(xm list | grep -c '^herd')" = "$count" ] || fail "$(xm list | grep -c '^herd') of $count guests run"
wait_for 60 says "herd$count" "small guest: running" || fail "the last guest does not run"
[ "$(cat /var/log/xen/console/guest-herd*.log | grep -c 'small guest: running')" -ge "$count" ] || fail "not every guest has run"
start=$(uptime_ms)
must list
echo "herd: xm list with $count guests in $(($(uptime_ms) - start)) ms"
start=$(uptime_ms)
must shutdown -a -w
wait_for 60 eval '[ "$(xm list | grep -c "^herd")" = 0 ]' || { logs; fail "$(xm list | grep -c '^herd') guests are left"; }
echo "herd: shut down in $(($(uptime_ms) - start)) ms"
# The hypervisor's heap grows by 2 MiB (8 units) when it must, and keeps them for the next guests.
free_units() { awk '/^oxen_host_free_memory_bytes/ { print $2 }' "$1"; }
heap_has_grown() { remains >/run/after; [ $(($(free_units /run/before) - $(free_units /run/after))) = 8 ]; }
wait_for 5 heap_has_grown && sed -i "s/^oxen_host_free_memory_bytes .*/oxen_host_free_memory_bytes $(free_units /run/after)/" /run/before
nothing_left "$count guests"

start=$(uptime_ms) n=1
while [ $n -le "$cycles" ]; do
    must create herd
    must destroy herd
    n=$((n + 1))
    [ $((n % 100)) != 0 ] || echo "herd: $n cycles, $(xm info | grep ^free_memory)"
done
echo "herd: $cycles times created and destroyed in $(($(uptime_ms) - start)) ms"
nothing_left "$cycles cycles"
ok
