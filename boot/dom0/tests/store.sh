# Our xenstored under Linux' xenbus and Debian's own tools, with a guest, and killed while all of them use it.
# Ours comes first; the other tools are Debian's.
PATH=$PATH:/usr/lib/xen-4.17/bin
mkdir -p /var/lib/xen /var/lib/xenstored /var/log/xen /run/xen /run/xenstored /etc/xen
[ -e /var/run ] || ln -s /run /var/run
load backends
# Like wait_for, but by the clock: the command itself may take long.
within() {
    end=$(($(date +%s) + $1)); shift
    until "$@"; do [ "$(date +%s)" -lt $end ] || return 1; sleep 2; done
}
say() { echo "store: $*"; }
log() { tail -n 5 /var/log/xen/xenstored.log; }
start() {
    xenstored --pid-file /run/xenstored.pid || fail "xenstored does not start: $(log)"
    [ -S /run/xenstored/socket ] || fail "xenstored made no socket"
}
# Kills the daemon, compares what a new one knows.
kill_and_compare() {
    xenstore-ls -fp / >/run/store.before || fail "xenstore-ls: $(log)"
    kill -9 "$(cat /run/xenstored.pid)" || fail "there is no xenstored to kill"
    sleep 0.2
    start
    xenstore-ls -fp / >/run/store.after || fail "xenstore-ls after the restart: $(log)"
    cmp -s /run/store.before /run/store.after || fail "the restart changed the tree: $(diff /run/store.before /run/store.after | head -n 5)"
}
start
timeout 60 xen-init-dom0 >/run/store.out 2>&1 || fail "xen-init-dom0: $(tail -n 1 /run/store.out)"

# The kernel's own ring: the device passes requests on over it.
over_ring() { XENSTORED_PATH=/dev/xen/xenbus timeout 20 "$@"; }
xenstore-write /store/a over-socket || fail "xenstore-write: $(log)"
[ "$(over_ring xenstore-read /store/a)" = over-socket ] || fail "/dev/xen/xenbus does not answer: $(log)"
over_ring xenstore-write /store/b over-ring || fail "cannot write over the kernel's ring"
[ "$(xenstore-read /store/b)" = over-ring ] || fail "what came over the kernel's ring is not there"
n=0
while [ $n -lt 60 ]; do xenstore-write "/store/children/a-child-with-a-rather-long-name-to-fill-more-than-one-answer-$n" $n || fail "write $n"; n=$((n + 1)); done
[ "$(over_ring xenstore-ls /store/children | wc -l)" = 60 ] || fail "a list longer than the ring is damaged"
over_ring xenstore-watch /store/watched >/run/store.watch &
sleep 1
kill_and_compare
# The watch came over the kernel's ring, whose connection outlives the daemon.
xenstore-write /store/watched/below now
wait_for 10 grep -q '^/store/watched/below$' /run/store.watch || fail "a watch of the kernel was lost: $(cat /run/store.watch)"
say "the kernel's ring works, and outlives the daemon"

cat >/run/guest.cfg <<CFG
name = "guest"
kernel = "/usr/share/oxen/guest/vmlinuz"
ramdisk = "/usr/share/oxen/guest/initrd.gz"
extra = "console=hvc0 guest.serve=1"
memory = 160
vcpus = 1
on_poweroff = "preserve"
on_crash = "preserve"
CFG
mkdir -p /var/lock
: >/etc/xen/xl.conf
# xl waits for a terminal of the guest.
mkdir -p /var/log/xen/console
/usr/lib/xen-4.17/bin/xenconsoled --log=guest --log-dir=/var/log/xen/console || fail "Debian's xenconsoled does not start"
timeout 120 xl create -e -q /run/guest.cfg >/run/store.out 2>&1 || fail "xl create: $(head -n 5 /run/store.out); $(log)"
domid=$(xl domid guest) || fail "xl domid: $(log)"
say "guest is domain $domid"
# Linux announces what it can be asked to do once its own xenbus works.
within 300 sh -c "[ \"\$(xenstore-read /local/domain/$domid/control/feature-poweroff 2>/dev/null)\" = 1 ]" ||
    fail "the guest does not reach xenstore: $(xl list guest | tail -n 1); $(tail -n 30 /var/log/xen/console/*guest*); $(log)"
say "the guest uses xenstore"
for round in 1 2 3; do
    kill_and_compare
    xl list guest >/run/store.out 2>&1 || fail "xl list after restart $round: $(tail -n 1 /run/store.out)"
done
xenstore-write "/local/domain/$domid/control/shutdown" poweroff || fail "cannot ask the guest to power off"
sleep 0.05
kill -9 "$(cat /run/xenstored.pid)"
start
within 150 sh -c 'xl list guest | tail -n 1 | grep -q -- "---s--"' || fail "the guest did not power off: $(xl list guest | tail -n 1); $(xenstore-read /local/domain/$domid/control/shutdown); $(log)"
say "the guest's connection outlives the daemon"
xl destroy guest >/run/store.out 2>&1 || fail "xl destroy: $(tail -n 2 /run/store.out)"
left=$(xenstore-ls -fp / | grep -E "^/local/domain/$domid|[nrwb]$domid[,)]" | head -n 3)
[ -z "$left" ] || fail "left behind: $left"
xenstore-rm /store
cat /var/log/xen/xenstored.log
ok
