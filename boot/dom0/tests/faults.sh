# What goes wrong with guests: each has one line that names the cause, and leaves nothing behind.
. /tests/xm-tools.sh
start_stack
image=/var/lib/xen/images/f.img
truncate -s 1M $image
small warm act=obey "disk = [\"file:$image,xvda,w\"]
vif = [\"bridge=xenbr0\"]"
must create warm
must destroy warm
remember

small f act=obey
must create f
refused 10 'the name f is in use' create f
uuid=$(xm --json list -l f | sed -n 's/.*"uuid": "\(.*\)".*/\1/p' | head -n 1)
refused 10 "$uuid is in use" create f name=g "uuid=$uuid"
refused 8 'nowhere' create nowhere
must destroy f

refused 1 '/nowhere/vmlinuz' create f kernel=/nowhere/vmlinuz
refused 1 '/etc/xen/scripts' create f kernel=/etc/xen/scripts
refused 1 '/etc/udhcpc.sh' create f kernel=/etc/udhcpc.sh
dd if=/usr/share/oxen/guest/vmlinuz of=/run/half bs=64k count=20 2>/dev/null
refused 1 '/run/half' create f kernel=/run/half
refused 1 '/nowhere/initrd' create f ramdisk=/nowhere/initrd
rm /run/half
refused 8 'memory' create f memory=none
refused 8 'vcpus' create f vcpus=0
refused 8 'disk.0.: .nonsense. lacks' create f 'disk=["nonsense"]'
must create -n f 'extra="a" + "b"'
grep -q '"ab"' /run/out || fail "the expression is not evaluated: $(cat /run/out)"
refused 8 'asks for more than can be evaluated' create f 'extra="a" * 2000000000'
refused 10 'not enough free memory' create f memory=100000
refused 8 'vcpus' create f vcpus=5000
refused 1 'memory' create f memory=1
refused 1 'xvda.*/nowhere.img does not exist' create f 'disk=["file:/nowhere.img,xvda,w"]'
refused 1 'is a file, not a block device' create f "disk=[\"phy:$image,xvda,w\"]"
refused 1 'is a directory' create f 'disk=["file:/etc,xvda,w"]'
refused 1 'there is no bridge br9' create f 'vif=["bridge=br9"]'
refused 1 'eth-none\|no bridge' create f 'vif=["bridge=lo"]'
refused 1 'my-vif' create f 'vif=["script=my-vif"]'
nothing_left "what is refused before a guest is made"

# Scripts that fail, once the guest exists.
mkdir -p /etc/xen/scripts
printf '#!/bin/sh\n[ "$1" = online ] || exit 0\necho "no plug for $vif here" >&2\nexit 3\n' >/etc/xen/scripts/bad-vif
printf '#!/bin/sh\n[ "$1" = add ] || exit 0\nxenstore-write "$XENBUS_PATH/hotplug-error" "the cellar is full" "$XENBUS_PATH/hotplug-status" error\n' >/etc/xen/scripts/bad-block
printf '#!/bin/sh\nexit 0\n' >/etc/xen/scripts/lazy-block
chmod +x /etc/xen/scripts/*
refused 1 'bad-vif online: .*no plug for vif' create f 'vif=["script=bad-vif"]'
refused 1 'bad-block add: .*the cellar is full' create f 'disk=["script=bad-block,vdev=xvda,target=x"]'
refused 1 'physical-device' create f 'disk=["script=lazy-block,vdev=xvda,target=x"]'
nothing_left "scripts that fail"

# Disks in use: by a guest, by domain 0.
must create f "disk=[\"file:$image,xvda,w\"]"
refused 10 'is in use by domain .* (f) as xvda, writable' create f name=g "disk=[\"file:$image,xvda,w\"]"
refused 10 'is in use by domain .* (f) as xvda, writable' create f name=g "disk=[\"file:$image,xvda,r\"]"
must create f name=g "disk=[\"file:$image,xvda,r!\"]"
must destroy f g
must create f "disk=[\"file:$image,xvda,r\"]"
must create f name=g "disk=[\"file:$image,xvda,r\"]"
refused 10 'read-only' create f name=h "disk=[\"file:$image,xvda,w\"]"
must destroy f g
nothing_left "disks in use"

# Guests that behave badly.
small f act=crash
must create f
must_go f
small f "" "disk = [\"file:$image,xvda,w\"]
vif = [\"bridge=xenbr0\"]"
must create f
must_say f "small guest: running"
refused 9 'did not react to the request to poweroff within 4 s' shutdown f
must block-detach f xvda
must network-detach f 0
must block-list f
[ "$(wc -l </run/out)" = 1 ] || fail "a disk is left: $(cat /run/out)"
must destroy f
nothing_left "a guest that does nothing"

small f act=flood
small g act=fill
must create f
must create g
must_say g "small guest: .* nodes, then EQUOTA\|small guest: .* nodes, then ENOSPC"
grep -q "domain $(xm domid g) reached quota node" /var/log/xen/xenstored.out /var/log/xen/xenstored.log 2>/dev/null || fail "xenstored does not tell of the quota: $(tail -n 3 /var/log/xen/xenstored.*)"
started=$(cut -d. -f1 /proc/uptime)
must list -l f
must pause f
must unpause f
[ $(($(cut -d. -f1 /proc/uptime) - started)) -le 15 ] || fail "a guest that floods its console keeps others from working"
sleep 2
size=$(cat /var/log/xen/console/guest-f.log* | wc -c)
[ "$size" -le $((64 << 20)) ] || fail "the log has grown to $size bytes"
must destroy f g
nothing_left "guests that flood"

# Two commands on one guest at once: one of them is told, or both are done in turn, and the guest is whole or gone.
small f act=obey
must create f
xm destroy f 2>/run/one & xm shutdown f 2>/run/two & wait $!
wait
cat /run/one /run/two
must_go f
xm create f >/dev/null 2>/run/one & xm create f >/dev/null 2>/run/two & wait
[ "$(cat /run/one /run/two | grep -c 'in use\|busy')" = 1 ] || fail "a name twice: $(cat /run/one /run/two)"
must destroy f
nothing_left "two commands at once"

# Domain 0 gives memory for guests, and not too much.
must mem-set 0 400
wait_for 20 eval '[ "$(column 0 3)" -le 401 ]' || fail "domain 0 does not shrink: $(xm list)"
free=$(xm info | sed -n 's/^free_memory *: //p')
must create f memory=$((free + 50))
[ "$(column 0 3)" -le 352 ] || fail "domain 0 has not made room: $(xm list)"
refused 10 'not enough free memory.*dom0-min-mem' create f name=g memory=300
must destroy f
refused 1 'that Domain-0 needs' mem-set 0 100
ok
