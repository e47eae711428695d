# User space under the hypervisor, with the processors that the machine has.
[ "$(cat /sys/hypervisor/type)" = xen ] || fail "/sys/hypervisor/type is $(cat /sys/hypervisor/type 2>&1)"
grep -q control_d /proc/xen/capabilities || fail "/proc/xen/capabilities does not say control_d"
[ -c /dev/xen/privcmd ] || fail "/dev/xen/privcmd is missing"
[ -c /dev/xen/evtchn ] || fail "/dev/xen/evtchn is missing"
echo "version $(cat /sys/hypervisor/version/major).$(cat /sys/hypervisor/version/minor)$(cat /sys/hypervisor/version/extra)"
cpus=$(word oxen.cpus)
[ -z "$cpus" ] || [ "$(nproc)" = "$cpus" ] || fail "$(nproc) processors instead of $cpus"
ok
