# Disks and network cards of Linux guests, put in and taken out while they run; processors, core files, restarts. The disks are
# checked afterwards, when the machine is off.
. /tests/xm-tools.sh
start_stack
megabytes=$(word oxen.megabytes)
wait_for 20 [ -b /dev/vda ] || fail "no /dev/vda"
wait_for 20 [ -b /dev/sda ] || fail "no /dev/sda"
truncate -s 16M /run/extra.img
linux first 11 'vcpus = 2
disk = ["phy:vda,xvda,w"]
on_reboot = "restart"'
linux second 12 'disk = ["phy:/dev/sda,xvda,w"]'
must create first
must create second
must_say first "guest: serving"
must_say first "guest: /dev/xvda on /mnt/xvda"
must_say second "guest: serving"

# Data, by disk and by wire.
must_carry 11 "${megabytes:-16}"
must_answer 12 "ping -c 2 -W 5 192.168.77.11"
for guest in 11 12; do
    must_answer $guest "dd if=/dev/urandom of=/mnt/xvda/f bs=64k count=64 2>/dev/null; md5sum </mnt/xvda/f >/mnt/xvda/sum; sync; echo 3 >/proc/sys/vm/drop_caches; md5sum </mnt/xvda/f | cmp - /mnt/xvda/sum"
done
must metrics
grep -q '^oxen_disk_written_bytes_total{.*domain="first"' /run/out && grep -q '^oxen_network_sent_bytes_total{.*domain="first"' /run/out || fail "no metrics of the devices: $(grep first /run/out)"

# Disks: refused where they are in use, and put in and taken out.
refused 10 '/dev/vda is in use by domain .* (first) as xvda, writable' block-attach second phy:vda xvdb w
refused 10 'is in use by domain .* (first)' block-attach second phy:/dev/vda xvdb r
mkdir -p /mnt/loop
mount -t tmpfs -o size=20m tmpfs /mnt/loop && cp /run/extra.img /mnt/loop/extra.img && mount -o remount,ro /mnt/loop
refused 1 'cannot be written.*mode .r. would do' block-attach first file:/mnt/loop/extra.img xvdb w
must block-attach first file:/mnt/loop/extra.img xvdb r
must_answer 11 'i=0; until [ -b /dev/xvdb ]; do i=$((i + 1)); [ $i -lt 200 ] || exit 1; sleep 0.1; done; [ "$(cat /sys/block/xvdb/ro)" = 1 ]'
must block-detach first xvdb
umount /mnt/loop
must block-attach first file:/run/extra.img,xvdb,w
refused 10 'is in use by domain .* (first) as xvdb' block-attach first file:/run/extra.img,xvdc,w
truncate -s 1M /run/other.img
refused 1 'one with this name already' block-attach first file:/run/other.img,xvdb,w
must_answer 11 'i=0; until [ -b /dev/xvdb ]; do i=$((i + 1)); [ $i -lt 200 ] || exit 1; sleep 0.1; done; mke2fs -q /dev/xvdb >/dev/null && mkdir -p /mnt/b && mount -t ext4 /dev/xvdb /mnt/b && echo hot >/mnt/b/f'
must block-list first
grep -q '^51728 .* 4 .*/backend/vbd/.*/51728$' /run/out || fail "block-list: $(cat /run/out)"
# Linux would give the disk up at once even while it is mounted.
must_answer 11 'umount /mnt/b'
must block-detach first xvdb
wait_for 20 eval '! xm block-list first | grep -q ^51728' || fail "the disk stays: $(xm block-list first)"
must_answer 11 '[ ! -b /dev/xvdb ]'
must block-attach first file:/run/extra.img xvdb w
must_answer 11 'i=0; until mount -t ext4 /dev/xvdb /mnt/b; do i=$((i + 1)); [ $i -lt 200 ] || exit 1; sleep 0.1; done; grep hot /mnt/b/f'
# By force while it is written: later writes fail, and the guest's next device comes all the same.
must_answer 11 '(while dd if=/dev/zero of=/mnt/b/g bs=64k count=16; do sync; done) </dev/null >/dev/null 2>&1 & echo $! >/writer; sleep 1'
must block-detach -f first xvdb
must_answer 11 'kill $(cat /writer); while pidof dd >/dev/null; do sleep 0.1; done; umount -l /mnt/b'
[ -z "$(losetup -a)" ] || fail "loop devices are left: $(losetup -a)"

# Cards: on the bridge, routed, by a user's script.
must network-attach first bridge=xenbr0 mac=00:16:3e:00:00:21
must_answer 11 'i=0; until [ -d /sys/class/net/eth1 ]; do i=$((i + 1)); [ $i -lt 200 ] || exit 1; sleep 0.1; done; ip addr add 192.168.78.11/24 dev eth1 && ip link set eth1 up && cat /sys/class/net/eth1/address'
grep -q 00:16:3e:00:00:21 /run/answer || fail "the card has another address: $(cat /run/answer)"
ip addr add 192.168.78.1/24 dev xenbr0
wait_for 20 ping -c 1 -W 2 192.168.78.11 >/dev/null || fail "no answer through the second card"
must network-list first
grep -q '00:16:3e:00:00:21 .* 4 ' /run/out || fail "network-list: $(cat /run/out)"
must network-detach first 00:16:3E:00:00:21
[ "$(xm network-list first | wc -l)" = 2 ] || fail "the card stays: $(xm network-list first)"
must network-attach first script=vif-route ip=192.168.79.11
must_answer 11 'i=0; until [ -d /sys/class/net/eth1 ]; do i=$((i + 1)); [ $i -lt 200 ] || exit 1; sleep 0.1; done; ip addr add 192.168.79.11/24 dev eth1 && ip link set eth1 up && ip route add 192.168.77.99/32 dev eth1'
vif=vif$(xm domid first).1
ip route | grep -q "192.168.79.11 dev $vif" || fail "no route to the guest: $(ip route)"
[ "$(cat /proc/sys/net/ipv4/conf/$vif/proxy_arp)" = 1 ] || fail "no proxy ARP on $vif"
ip addr add 192.168.79.1/32 dev $vif
wait_for 20 ping -c 1 -W 2 -I 192.168.79.1 192.168.79.11 >/dev/null || fail "no answer by the route: $(ip addr show dev $vif; ip route)"
must network-detach first 1
mkdir -p /etc/xen/scripts
printf '#!/bin/sh\necho "$1 $vif $XENBUS_PATH $(xenstore-read "$XENBUS_PATH/mac")" >>/run/script.log\n[ "$1" = online ] && brctl addif xenbr0 "$vif" && ip link set "$vif" up\nexit 0\n' >/etc/xen/scripts/my-vif
printf '#!/bin/sh\necho "$1 $XENBUS_PATH" >>/run/script.log\ncase $1 in\nadd)\n    dev=$(losetup -f) && losetup "$dev" "$(xenstore-read "$XENBUS_PATH/params")" || exit 1\n    xenstore-write "$XENBUS_PATH/node" "$dev" "$XENBUS_PATH/physical-device" "$(printf %%x:%%x $(stat -c "0x%%t 0x%%T" "$dev"))" "$XENBUS_PATH/hotplug-status" connected ;;\nremove) losetup -d "$(xenstore-read "$XENBUS_PATH/node")" ;;\nesac\n' >/etc/xen/scripts/my-block
chmod +x /etc/xen/scripts/my-vif /etc/xen/scripts/my-block
must network-attach first script=my-vif mac=00:16:3e:00:00:22
grep -q "^online $vif backend/vif/.* 00:16:3e:00:00:22" /run/script.log || fail "the script was not run: $(cat /run/script.log)"
must network-detach first 1
grep -q "^offline $vif" /run/script.log || fail "the script did not hear of the end: $(cat /run/script.log)"
must block-attach first script=my-block,vdev=xvdc,target=/run/extra.img
must_answer 11 'i=0; until mount -t ext4 /dev/xvdc /mnt/b; do i=$((i + 1)); [ $i -lt 200 ] || exit 1; sleep 0.1; done; grep hot /mnt/b/f; umount /mnt/b'
must block-detach first xvdc
grep -q '^remove backend/vbd' /run/script.log || fail "the block script did not hear of the end: $(cat /run/script.log)"
[ -z "$(losetup -a)" ] || fail "the script's loop device is left: $(losetup -a)"
rm /etc/xen/scripts/my-vif /etc/xen/scripts/my-block

# Processors, keys, memory in a file.
must vcpu-set first 1
must_answer 11 'i=0; until [ "$(nproc)" = 1 ]; do i=$((i + 1)); [ $i -lt 100 ] || exit 1; sleep 0.1; done'
must vcpu-set first 2
must_answer 11 'i=0; until [ "$(nproc)" = 2 ]; do i=$((i + 1)); [ $i -lt 100 ] || exit 1; [ -f /sys/devices/system/cpu/cpu1/online ] && echo 1 >/sys/devices/system/cpu/cpu1/online; sleep 0.1; done'
must sysrq first h
must_say first "sysrq: HELP" 20
must shutdown -w second
must_go second
mount -t ext4 /dev/sda /mnt/loop || fail "dom0 cannot mount what the guest has left"
md5sum </mnt/loop/f | cmp - /mnt/loop/sum || fail "the guest's file is not what it wrote"
refused 10 'mounted in domain 0 at /mnt/loop' block-attach first phy:/dev/sda xvdb w
refused 10 'mounted in domain 0 at /mnt/loop, writable' block-attach first phy:/dev/sda xvdb r
must dump-core first /mnt/loop/core
[ "$(stat -c %s /mnt/loop/core)" -gt $((140 << 20)) ] || fail "the core file has $(stat -c %s /mnt/loop/core) bytes"
umount /mnt/loop

# Again, with the devices that it has now.
must block-attach first file:/run/extra.img,xvdb,w
must network-attach first bridge=xenbr0
mac=$(xm network-list first | awk 'NR == 3 { print $3 }')
rm /var/log/xen/console/guest-first.log
must reboot -w first
must_say first "guest: serving"
must_answer 11 "cat /sys/class/net/eth1/address; ls /dev/xvdb"
grep -q "$mac" /run/answer || fail "after the reboot the second card is another: $(cat /run/answer) instead of $mac"
must shutdown -a -w
must_go first
[ -z "$(losetup -a)" ] && ! ls /sys/class/net | grep -q '^vif' || fail "left: $(losetup -a) $(ls /sys/class/net)"
ok
