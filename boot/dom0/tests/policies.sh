# Managed guests, what happens when guests end, and what can be changed while they run; with small guests.
. /tests/xm-tools.sh
start_stack
small warm act=obey 'disk = ["file:/run/p.img,xvda,w"]
vif = ["bridge=xenbr0"]'
truncate -s 1M /run/p.img
must create warm
must shutdown -w warm
must_go warm
remember

# A managed guest is known while it does not run, and across a kill of xend.
small kept act=obey
must new kept
refused 10 'the name kept is in use' new kept
xm list | grep -q '^kept ' || fail "xm list does not show a managed guest: $(xm list)"
refused 1 'not running' domid kept
must start kept
must_say kept "small guest: running"
refused 9 'running' start kept
refused 9 'running' delete kept
id=$(xm domid kept)
kill -9 "$(pidof xend)"
refused 7 'xend' rename kept other
start_xend
[ "$(xm domid kept)" = "$id" ] || fail "after a kill of xend the guest has id '$(xm domid kept)' instead of $id"
must shutdown -w kept
wait_for 20 is_gone kept
kill -9 "$(pidof xend)"
start_xend
must start kept
must reboot -w kept
[ "$(xm domid kept)" != "$id" ] || fail "reboot -w returned before the guest was back"
must destroy kept
must delete kept
refused 5 'no domain kept' start kept
nothing_left "a managed guest"

# policy NAME WORDS LINE: creates a guest that ends.
policy() { small "$1" "$2" "$3"; rm -f "/var/log/xen/console/guest-$1.log"; must create "$1"; }
policy p act=poweroff 'on_poweroff = "destroy"'
must_go p
policy p act=poweroff 'on_poweroff = "preserve"'
must_be p s
must destroy p
policy p act=crash 'on_crash = "destroy"'
must_go p
policy p act=crash 'on_crash = "preserve"'
must_be p c
refused 9 'shut down already' shutdown p
must destroy p
policy p act=reboot 'on_reboot = "destroy"'
must_go p
nothing_left "destroy and preserve"

# What restarts too often stays away.
policy p act=crash 'on_crash = "restart"'
must_go p 60
log_has 'p: restarted 5 times' || fail "the guest was not given up: $(logs)"
lines=$(grep -c 'small guest: running' /var/log/xen/console/guest-p.log)
[ "$lines" = 6 ] || fail "of 6 guests that ended at once the console has $lines lines"
policy p act=reboot 'on_reboot = "restart"'
must_go p 60
nothing_left "restarts"

# A renamed guest gives its devices to the successor.
policy p act=obey 'on_poweroff = "rename-restart"
disk = ["file:/run/p.img,xvda,w"]
vif = ["bridge=xenbr0"]'
id=$(xm domid p)
xm shutdown p || fail "shutdown ended with $?"
has_successor() { new=$(xm domid p 2>/dev/null) && [ "$new" != "$id" ] && is p b; }
wait_for 30 has_successor || { logs; fail "rename-restart: $(xm list)"; }
is "p-$id" s || fail "the renamed guest: $(xm list)"
must block-list p
grep -q '^51712 ' /run/out || fail "the successor has no disk: $(cat /run/out)"
must destroy p "p-$id"
nothing_left "rename-restart"
policy r act=crash 'on_crash = "rename-restart"'
wait_for 60 log_has 'r: restarted 5 times' || { logs; fail "renaming does not end: $(xm list)"; }
xm list | awk '/^r/ { print $1 }' | xargs xm destroy || fail "destroying the renamed ones"
nothing_left "rename-restart of a guest that crashes"

# Core files.
for action in coredump-destroy coredump-restart; do
    rm -rf /var/lib/xen/dump
    policy p act=crash "on_crash = \"$action\""
    must_go p 60
    set -- /var/lib/xen/dump/p.*.core
    [ -f "$1" ] || { logs; fail "$action: no core file"; }
    [ "$(stat -c %s "$1")" -ge $((6 << 20)) ] || fail "$1 has $(stat -c %s "$1") bytes"
    [ "$(dd if="$1" bs=1 skip=1 count=3 2>/dev/null)" = ELF ] || fail "$1 is no ELF file"
done
[ $# -ge 2 ] || fail "coredump-restart dumped only once"
rm -rf /var/lib/xen/dump
nothing_left "core files"

# What can be changed.
policy p act=obey 'vcpus = 2
maxmem = 16'
small q act=obey
must create q
id=$(xm domid p)
must rename p renamed
[ "$(xm domid renamed)" = "$id" ] && [ "$(xm domname "$id")" = renamed ] || fail "after renaming: $(xm list)"
[ "$(xenstore-read "/local/domain/$id/name")" = renamed ] || fail "xenstore has the old name"
refused 10 'the name q is in use' rename renamed q
refused 5 'no domain p' domid p
must sched-credit -d renamed -w 512 -c 50
must sched-credit -d renamed
grep -q 'renamed  *[0-9]*  *512  *50$' /run/out || fail "sched-credit: $(cat /run/out)"
must vcpu-pin renamed 0 1
must vcpu-list renamed
grep -q 'renamed  *[0-9]*  *0 .* 1 / ' /run/out || fail "vcpu-pin: $(cat /run/out)"
must vcpu-pin renamed all all
refused 1 'has no vCPU 7' vcpu-pin renamed 7 0
refused 2 'none of these processors exists' vcpu-pin renamed 0 77
refused 1 '1 to 2' vcpu-set renamed 3
must mem-max renamed 32
refused 1 '6 MiB\|KiB now' mem-max renamed 2
must pause renamed
must_be renamed p
must unpause renamed
must list -l renamed
grep -q '"name": "renamed"' /run/out || fail "list -l: $(cat /run/out)"
must top -b -i 1 -d 1
grep -q renamed /run/out || fail "top: $(cat /run/out)"
must uptime renamed
must info
must log -n 20
grep -q 'renamed\|rename' /run/out || fail "log: $(cat /run/out)"
must metrics
grep -q '^oxen_vcpu_cpu_seconds_total{.*domain="renamed".*vcpu="1"' /run/out || fail "metrics: $(grep renamed /run/out)"
# How long others kept its vCPUs waiting is told by Oxen only.
if xm info | grep -q '^xen_extra .*Oxen'; then
    [ "$(grep -c '^oxen_vcpu_steal_seconds_total{.*domain="renamed".*vcpu="[01]"' /run/out)" = 2 ] || fail "metrics without steal: $(grep steal /run/out)"
    grep -q '^oxen_scrape_errors 0$' /run/out || fail "metrics: $(grep errors /run/out)"
fi
for command in list info uptime vcpu-list sched-credit "block-list renamed" "network-list renamed" "list -l"; do
    must --json $command
    case $(head -c 1 /run/out) in "[" | "{") ;; *) fail "xm --json $command: $(head -n 3 /run/out)" ;; esac
done
must shutdown -a -w
must_go renamed
must_go q
nothing_left "changes"
ok
