# A Linux guest with 64 vCPUs, half of them plugged in while it runs, all of them busy on two processors. What the guest and the host
# say of the time that its vCPUs waited has to agree.
. /tests/xm-tools.sh
start_stack
linux many 11 'memory = 320
vcpus = 32
maxvcpus = 64'
must create many
must_say many "guest: serving" 300
must_answer 11 '[ "$(nproc)" = 32 ]'
must vcpu-set many 64
must_answer 11 'i=0; until [ -e /sys/devices/system/cpu/cpu63/online ]; do i=$((i + 1)); [ $i -lt 200 ] || exit 1; sleep 0.1; done
for cpu in /sys/devices/system/cpu/cpu*/online; do [ "$(cat $cpu)" = 1 ] || echo 1 >$cpu || exit 1; done; [ "$(nproc)" = 64 ]'
[ "$(xm vcpu-list many | grep -c '^many ')" = 64 ] || fail "vcpu-list: $(xm vcpu-list many)"
refused 1 '1 to 64' vcpu-set many 65

# In hundredths of a second.
waited() { xm metrics | awk '/^oxen_vcpu_steal_seconds_total.*domain="many"/ { sum += $2 } END { print int(sum * 100) }'; }
guest_waited() { must_answer 11 'read cpu user nice system idle iowait irq softirq steal rest </proc/stat; echo "steal $steal"' >&2; sed -n 's/^steal //p' /run/answer; }
host=$(waited) guest=$(guest_waited)
must_answer 11 'for n in $(seq 64); do (while :; do :; done) & all="$all $!"; done; sleep 8; kill $all'
guest=$(($(guest_waited) - guest)) host=$(($(waited) - host))
echo "vcpus: they waited for $((host / 100)) s by the host's count, $((guest / 100)) s by the guest's"
# 62 of 64 wait at any time, for 8 s.
[ $host -gt 40000 ] || fail "64 busy vCPUs on two processors waited for $((host / 100)) s only"
[ $((guest * 10)) -gt $((host * 9)) ] && [ $((guest * 10)) -lt $((host * 11)) ] || fail "the guest counts $((guest / 100)) s of stolen time, the host $((host / 100)) s"

must vcpu-set many 3
must_answer 11 'i=0; until [ "$(nproc)" = 3 ]; do i=$((i + 1)); [ $i -lt 300 ] || exit 1; sleep 0.1; done'
must shutdown -w many
must_go many
ok
