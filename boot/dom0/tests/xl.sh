# Debian's own tools over this hypervisor: they answer, and their answers fit what the machine is.
PATH=/usr/lib/xen-4.17/bin:$PATH
mkdir -p /var/lib/xen /var/lib/xenstored /var/log/xen /run/xen /run/xenstored /etc/xen
[ -e /var/run ] || ln -s /run /var/run
xenstored --pid-file /run/xenstored.pid >/run/xl 2>&1 || fail "xenstored: $(tail -n 1 /run/xl)"
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
[ -s /run/xl.dmesg ] || fail "xl dmesg prints nothing"
ok
