# Guests by Debian's own tools over this hypervisor: created, listed, paused, their consoles read, ended in each way, and nothing of them left.
PATH=/usr/lib/xen-4.17/bin:$PATH
mkdir -p /var/lib/xen /var/lib/xenstored /var/log/xen/console /run/xen /run/xenstored /etc/xen
echo >/etc/xen/xl.conf
[ -e /var/run ] || ln -s /run /var/run
xenstored --pid-file /run/xenstored.pid >/run/xl 2>&1 || fail "xenstored: $(tail -n 1 /run/xl)"
wait_for 20 [ -S /run/xenstored/socket ] || fail "xenstored made no socket"
timeout 60 xen-init-dom0 >/run/xl 2>&1 || fail "xen-init-dom0: $(tail -n 1 /run/xl)"
xenconsoled --log=guest --log-dir=/var/log/xen/console --pid-file=/run/xenconsoled.pid >/run/xl 2>&1 || fail "xenconsoled: $(tail -n 1 /run/xl)"

# Runs xl; its words go to /run/xl.
run() { timeout 120 xl "$@" >/run/xl 2>&1; }
must() { run "$@" || { cat /run/xl; fail "xl $*: $(tail -n 1 /run/xl)"; }; }
free_mib() { xl info | sed -n 's/^free_memory *: //p'; }
# State column of a guest: running or blocked, paused, ending.
state() { xl list "$1" 2>/dev/null | awk 'NR == 2 { print $5 }'; }
is_gone() { ! xl list "$1" >/dev/null 2>&1; }
says() { grep -q "$2" "/var/log/xen/console/guest-$1.log" 2>/dev/null; }
config() {
    cat >"/run/$1.cfg" <<END
name    = "$1"
kernel  = "/usr/share/oxen/guest/vmlinuz"
ramdisk = "/usr/share/oxen/guest/initrd.gz"
extra   = "console=hvc0 earlyprintk=xen $2"
memory  = 160
vcpus   = $3
END
}
show_console() { tail -n 30 "/var/log/xen/console/guest-$1.log"; }

config first "" 2
before=$(free_mib)
must create /run/first.cfg
must list
cat /run/xl
wait_for 90 says first 'guest: user space reached, 2 processors' || { show_console first; fail "the guest's console does not show user space; state $(state first)"; }
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
wait_for 90 says second 'guest: user space reached' || { show_console second; fail "second guest: no user space; state $(state second)"; }
wait_for 60 is_gone second || fail "the guest that powered off is still there: $(state second)"

config third "" 1
must create /run/third.cfg
must destroy third
wait_for 20 is_gone third || fail "the destroyed guest is still there: $(state third)"
must create -p /run/third.cfg
[ "$(state third)" = --p--- ] || fail "state of a guest created paused: $(state third)"
must destroy third
wait_for 20 is_gone third || fail "the guest destroyed before it ran is still there: $(state third)"
wait_for 20 [ "$(free_mib)" -ge $((before - 4)) ] || fail "free memory: $(free_mib) MiB, before $before MiB"
ok
