# Guests by Debian's own tools over this hypervisor: created, listed, paused, their consoles read, ended in each way, and nothing of them left.
. /tests/xl-tools.sh
start_xl
config first "" 2
before=$(free_mib)
must create /run/first.cfg
must list
cat /run/xl
must_say first 'guest: user space reached, 2 processors'
must pause first
[ "$(state first)" = --p--- ] || fail "state of a paused guest: $(state first)"
must unpause first
case $(state first) in *p*) fail "state of an unpaused guest: $(state first)" ;; esac
must vcpu-list first
[ "$(grep -c '^first' /run/xl)" = 2 ] || fail "vcpu-list: $(cat /run/xl)"
[ "$(free_mib)" -le $((before - 160)) ] || fail "free memory with a guest of 160 MiB: $(free_mib) of $before MiB"
must shutdown -w first
wait_for 20 is_gone first || fail "the guest is still there after its shutdown: $(state first)"

config second "guest.end=poweroff" 1
must create /run/second.cfg
must_say second 'guest: user space reached'
wait_for 60 is_gone second || fail "the guest that powered off is still there: $(state second)"

config third "" 1
must create /run/third.cfg
must destroy third
wait_for 20 is_gone third || fail "the destroyed guest is still there: $(state third)"
must create -p /run/third.cfg
[ "$(state third)" = --p--- ] || fail "state of a guest created paused: $(state third)"
must destroy third
wait_for 20 is_gone third || fail "the guest destroyed before it ran is still there: $(state third)"
wait_for 20 eval '[ "$(free_mib)" -ge $((before - 4)) ]' || fail "free memory: $(free_mib) MiB, before $before MiB"
ok
