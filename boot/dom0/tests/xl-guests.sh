# What Debian's tools change about running guests: memory, processors, restarts, crashes, core files; many vCPUs.
. /tests/xl-tools.sh
start_xl
config first "" 3
must create /run/first.cfg
must_say first 'guest: user space reached, 3 processors'
id=$(xl domid first)

# Columns of xl list.
memory() { xl list first | awk 'NR == 2 { print $3 }'; }
processors() { xl list first | awk 'NR == 2 { print $4 }'; }
before=$(free_mib)
must mem-set first 120
wait_for 20 eval '[ "$(memory)" = 120 ]' || fail "mem-set 120: $(memory) MiB"
wait_for 20 eval '[ "$(free_mib)" -ge $((before + 39)) ]' || fail "free memory after ballooning down: $(free_mib) MiB, before $before MiB"
must mem-set first 160
wait_for 20 eval '[ "$(memory)" = 160 ]' || fail "mem-set 160: $(memory) MiB"
[ "$(processors)" = 3 ] || fail "a guest of 3 vCPUs has $(processors)"
must vcpu-set first 1
wait_for 20 eval '[ "$(processors)" = 1 ]' || fail "vcpu-set 1: $(processors)"
must dump-core first /run/core
[ "$(stat -c %s /run/core)" -gt $((150 << 20)) ] || fail "the core file has $(stat -c %s /run/core) bytes"
rm /run/core
case $(state first) in *[pcd]*) fail "state after dump-core: $(state first)" ;; esac
must reboot first
wait_for 20 eval '[ "$(xl domid first 2>/dev/null)" != "$id" ] && [ -n "$(xl domid first 2>/dev/null)" ]' || fail "reboot: $(cat /run/xl)"
must destroy first
wait_for 20 is_gone first || fail "the guest is still there: $(state first)"

config crashing "guest.end=crash" 1 'on_crash = "preserve"'
must create /run/crashing.cfg
wait_for 40 eval 'case $(state crashing) in *c*) true ;; *) false ;; esac' || fail "state of a crashed guest: $(state crashing)"
must destroy crashing
wait_for 20 is_gone crashing || fail "the crashed guest is still there: $(state crashing)"

config wide "" 32
must create /run/wide.cfg
must_say wide 'guest: user space reached, 32 processors' 240
must destroy wide
wait_for 20 is_gone wide || fail "the guest with 32 vCPUs is still there: $(state wide)"
ok
