# The console daemon with a guest made by Debian's xl: output reaches the log, typing reaches the guest, killing the daemon loses nothing,
# a flood is held back, and nothing is left of a guest that is gone.
PATH=$PATH:/usr/lib/xen-4.17/bin
mkdir -p /var/lib/xen /var/lib/xenstored /var/log/xen/console /run/xen /run/xenstored /etc/xen
echo >/etc/xen/xl.conf
[ -e /var/run ] || ln -s /run /var/run
/usr/lib/xen-4.17/bin/xenstored --pid-file /run/xenstored.pid >/run/out 2>&1 || fail "xenstored: $(tail -n 1 /run/out)"
wait_for 20 [ -S /run/xenstored/socket ] || fail "xenstored made no socket"
timeout 60 xen-init-dom0 >/run/out 2>&1 || fail "xen-init-dom0: $(tail -n 1 /run/out)"

start_daemon() { /usr/sbin/xenconsoled --log-size 64 --log-keep 3 --burst 256 >>/run/xenconsoled.out 2>&1 & daemon=$!; }
start_daemon
sleep 1
/usr/sbin/xenconsoled >/run/out 2>&1 && fail "a second daemon started"
grep -q 'another xenconsoled' /run/out || fail "the second daemon says: $(cat /run/out)"

cat >/run/guest.cfg <<END
name    = "talker"
kernel  = "/usr/share/oxen/guest/vmlinuz"
ramdisk = "/usr/share/oxen/guest/initrd.gz"
extra   = "console=hvc0"
memory  = 160
vcpus   = 1
END
timeout 120 xl create /run/guest.cfg >/run/out 2>&1 || fail "xl create: $(tail -n 1 /run/out)"
# The guest's output, oldest first.
output() { for n in .3 .2 .1 ''; do cat "/var/log/xen/console/guest-talker.log$n" 2>/dev/null; done | tr -d '\r'; }
says() { output | grep "$1" >/dev/null; }
tail_of_log() { cat /run/xenconsoled.out; tail -n 20 /var/log/xen/console/guest-talker.log; }
wait_for 120 says 'leaves its console' || { tail_of_log; fail "the guest's console does not show its shell"; }
sleep 2
tty() { ls /dev/pts | grep -v ptmx | head -n 1; }
type() { printf '%s\r' "$1" >"/dev/pts/$(tty)"; }

# Numbered lines through three daemons. The guest's kernel must not speak in between.
type 'dmesg -n 1'
sleep 1
type 'seq 1 3000; echo end of "lines"'
sleep 0.3
for round in 1 2 3; do
    kill -9 $daemon
    wait $daemon 2>/dev/null
    sleep 0.5
    start_daemon
    sleep 0.2
done
wait_for 60 says '^end of lines' || { tail_of_log; fail "the numbered lines do not end"; }
output | grep -x '[0-9][0-9]*' | sort -n | uniq >/run/lines
if ! seq 1 3000 | cmp -s - /run/lines; then
    missing=$(seq 1 3000 | diff - /run/lines | sed -n 's/^[-<] *\([0-9][0-9]*\)$/\1/p' | head -n 1)
    output | grep -B 3 -A 3 -E "^$((missing - 1))\$"
    fail "$(wc -l </run/lines) of 3000 lines came through; line $missing is missing"
fi

# A flood: the daemon sleeps most of the time, and the disk does not fill. How often it wakes does not depend on the load of the machine,
# as times do.
ticks() { awk '{ print $14 + $15 }' "/proc/$daemon/stat"; }
wakes() { awk '/^voluntary_ctxt/ { print $2 }' "/proc/$daemon/status"; }
type 'yes 0123456789012345678901234567890123456789'
sleep 8
before=$(wakes) ticks=$(ticks)
sleep 5
wakes=$(($(wakes) - before)) ticks=$(($(ticks) - ticks))
size=$(du -sk /var/log/xen/console | cut -f 1)
echo "console: in 5 s of flood the daemon woke $wakes times and ran $ticks ticks of 10 ms; the logs have $size KiB"
[ "$wakes" -lt 1000 ] || fail "the daemon woke $wakes times in 5 s of flood"
[ "$size" -lt 400 ] || fail "the logs have $size KiB"
type "$(printf '\003')"

before=$(ls /dev/pts | wc -l)
timeout 60 xl destroy talker >/run/out 2>&1 || fail "xl destroy: $(tail -n 1 /run/out)"
gone() { [ "$(ls /dev/pts | wc -l)" -lt "$before" ] && [ "$(xl list | wc -l)" = 2 ]; }
wait_for 20 gone || { cat /run/xenconsoled.out; fail "left of the guest: $(xl list) $(ls /dev/pts)"; }
kill -0 $daemon || fail "the daemon is gone: $(cat /run/xenconsoled.out)"
kill $daemon
ok
