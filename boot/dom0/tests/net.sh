# Every network card with the expected driver: DHCP, ping, and a checked transfer over TCP on the user-mode network.
n=0
for driver in $(word oxen.nics | tr , ' '); do
    dev=eth$n
    wait_for 10 [ -d "/sys/class/net/$dev" ] || fail "$dev did not appear"
    n=$((n + 1))
done
expected=$(seq 1 200000 | md5sum)
for dev in $(cd /sys/class/net && ls -d eth*); do
    driver=$(basename "$(readlink "/sys/class/net/$dev/device/driver")")
    # virtio cards hang below a virtio bus device.
    case ,$(word oxen.nics), in *,"$driver",*) ;; *) fail "$dev has driver $driver" ;; esac
    udhcpc -i "$dev" -s /etc/udhcpc.sh -n -q -t 8 -T 2 >/run/udhcpc 2>&1 || fail "$dev: no DHCP lease: $(tail -n 1 /run/udhcpc)"
    net=$(ip -4 addr show dev "$dev" | sed -n 's/.*inet \([0-9]*\.[0-9]*\.[0-9]*\)\..*/\1/p')
    ping -c 3 -W 5 "$net.2" >/dev/null || fail "$dev: no answer from $net.2"
    got=$(nc "$net.100" 80 </dev/null | md5sum)
    [ "$got" = "$expected" ] || fail "$dev: transfer over TCP is damaged"
    ip addr flush dev "$dev"
    ip link set "$dev" down
    echo "net: $dev ($driver) works"
done
[ $n -gt 0 ] || fail "no network cards were announced"
ok
