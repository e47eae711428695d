# Debian's own tools over this hypervisor: they answer, and their answers fit what the machine is.
PATH=/usr/lib/xen-4.17/bin:$PATH
mkdir -p /var/lib/xen /var/lib/xenstored /var/log/xen /run/xen /run/xenstored /etc/xen
[ -e /var/run ] || ln -s /run /var/run
/usr/lib/xen-4.17/bin/xenstored --pid-file /run/xenstored.pid >/run/xl 2>&1 || fail "xenstored: $(tail -n 1 /run/xl)"
wait_for 20 [ -S /run/xenstored/socket ] || fail "xenstored made no socket"
timeout 60 xen-init-dom0 >/run/xl 2>&1 || fail "xen-init-dom0: $(tail -n 1 /run/xl)"
for verb in info list vcpu-list dmesg; do
    timeout 60 xl $verb >/run/xl.$verb 2>&1 || fail "xl $verb: $(tail -n 1 /run/xl.$verb)"
done
cat /run/xl.info /run/xl.list /run/xl.vcpu-list
value() { sed -n "s/^$1 *: //p" /run/xl.info; }
cpus=$(word oxen.cpus)
[ "$(value nr_cpus)" = "$cpus" ] || fail "xl info: nr_cpus is $(value nr_cpus)"
[ "$(value xen_major)" = 4 ] && [ "$(value xen_minor)" = .17 -o "$(value xen_minor)" = 17 ] || fail "xl info: version $(value xen_major) $(value xen_minor)"
[ "$(value total_memory)" -gt 900 ] || fail "xl info: total_memory is $(value total_memory)"
[ "$(value free_memory)" -lt "$(value total_memory)" ] || fail "xl info: free_memory is $(value free_memory)"
[ "$(value xen_pagesize)" = 4096 ] || fail "xl info: xen_pagesize is $(value xen_pagesize)"
grep -Eq "^Domain-0 +0 +[0-9]+ +$cpus +r-----" /run/xl.list || fail "xl list: $(tail -n 1 /run/xl.list)"
[ "$(grep -c '^Domain-0' /run/xl.vcpu-list)" = "$cpus" ] || fail "xl vcpu-list: $(cat /run/xl.vcpu-list)"
# The scheduler's settings.
sched() { timeout 60 xl sched-credit "$@" 2>&1; }
sched -d Domain-0 -w 512 -c 90 >/run/xl.sched || fail "xl sched-credit -w 512 -c 90: $(tail -n 1 /run/xl.sched)"
sched | grep -Eq "^Domain-0 +0 +512 +90" || fail "xl sched-credit: $(sched | tail -n 1)"
sched -d Domain-0 -w 256 -c 0 >/run/xl.sched || fail "xl sched-credit -w 256 -c 0: $(tail -n 1 /run/xl.sched)"
sched -s -t 20 -r 500 >/run/xl.sched || fail "xl sched-credit -s -t 20 -r 500: $(tail -n 1 /run/xl.sched)"
sched -s | grep -q "tslice=20ms ratelimit=500us" || fail "xl sched-credit -s: $(sched -s | tail -n 1)"
sched -s -t 30 -r 1000 >/run/xl.sched || fail "xl sched-credit -s -t 30 -r 1000: $(tail -n 1 /run/xl.sched)"
timeout 60 xl cpupool-list >/run/xl.pools 2>&1 || fail "xl cpupool-list: $(tail -n 1 /run/xl.pools)"
grep -Eq "^Pool-0 +$cpus +credit " /run/xl.pools || fail "xl cpupool-list: $(tail -n 1 /run/xl.pools)"
timeout 60 xl vcpu-pin 0 0 0 >/run/xl.pin 2>&1 || fail "xl vcpu-pin 0 0 0: $(tail -n 1 /run/xl.pin)"
timeout 60 xl vcpu-list | grep -Eq "^Domain-0 +0 +0 +0 .* 0 / all" || fail "xl vcpu-list after vcpu-pin: $(xl vcpu-list | tail -n 1)"
timeout 60 xl vcpu-pin 0 0 all >/run/xl.pin 2>&1 || fail "xl vcpu-pin 0 0 all: $(tail -n 1 /run/xl.pin)"
[ -s /run/xl.dmesg ] || fail "xl dmesg prints nothing"
ok
