# For tests with our own control stack: starting it, making configurations, and seeing that nothing is left of what is gone.

start_stack() {
    mkdir -p /var
    [ -e /var/run ] || ln -s /run /var/run
    [ -S /run/xend/xend.sock ] && return
    start_bridge || fail "no bridge"
    # Guests that are to be refused are asked often here, and half a minute is long to wait.
    mkdir -p /etc/xen/scripts
    [ -f /etc/xen/xend-config.sxp ] || echo "(shutdown-timeout 4) (dom0-min-mem 200)" >/etc/xen/xend-config.sxp
    start_tools || fail "the control stack does not start"
    ip addr add 192.168.77.1/24 dev xenbr0
}
# Starts xend after it was killed, and waits until it answers.
start_xend() {
    xend >>/var/log/xen/xend.out 2>&1 &
    wait_for 30 xend_answers || fail "xend does not come back: $(tail -n 3 /var/log/xen/xend.out)"
}
xend_answers() { xm list -l >/dev/null 2>&1; }
logs() { tail -n 15 /var/log/xen/xend.log; }

# Runs xm, which has to succeed; its words go to /run/out and /run/err.
must() { echo "xm $*"; timeout 240 xm "$@" >/run/out 2>/run/err || { code=$?; cat /run/out; logs; fail "xm $* ended with $code: $(tail -n 1 /run/err)"; }; }
# refused CODE TEXT COMMAND: xm has to refuse with this exit code, and say why in one line that has the text.
refused() {
    wanted=$1 text=$2; shift 2
    echo "xm $*, to be refused"
    timeout 120 xm "$@" >/run/out 2>/run/err; code=$?
    [ "$code" = "$wanted" ] || { logs; fail "xm $* ended with $code instead of $wanted: $(cat /run/err)"; }
    [ "$(wc -l </run/err)" = 1 ] || fail "xm $* does not say one line: $(cat /run/err)"
    grep -q -e "$text" /run/err || fail "xm $*: no '$text' in: $(cat /run/err)"
}

# Columns of xm list.
column() { xm list "$1" 2>/dev/null | awk -v column="$2" 'NR == 2 { print $column }'; }
state() { column "$1" 5; }
# Whether nothing is left of a guest; a managed one may still be known.
is_gone() { ! xm list -l "$1" >/run/shown 2>/dev/null || grep -q '"state": "halted"' /run/shown; }
must_go() { wait_for "${2:-30}" is_gone "$1" || { logs; fail "$1 is still there: $(xm list | grep "^$1 ")"; }; }
# Whether the state has the letter `$2`.
is() { case $(state "$1") in *"$2"*) true ;; *) false ;; esac; }
must_be() { wait_for "${3:-30}" is "$1" "$2" || { logs; fail "$1 has not become '$2': $(xm list | grep "^$1 ")"; }; }
says() { grep -qs -e "$2" "/var/log/xen/console/guest-$1.log"; }
must_say() { wait_for "${3:-90}" says "$1" "$2" || { tail -n 20 "/var/log/xen/console/guest-$1.log"; logs; fail "guest $1 does not say '$2'"; }; }
log_has() { grep -q -e "$1" /var/log/xen/xend.log; }

# small NAME WORDS [MORE LINES]: the configuration of a small guest, which does what the words say.
small() {
    cat >"/etc/xen/$1" <<END
name = "$1"
kernel = "/usr/share/oxen/guest/small-guest"
memory = 6
extra = "$2"
$3
END
}
# linux NAME N [MORE LINES]: that of a Linux guest with address 192.168.77.N, which carries out requests.
linux() {
    cat >"/etc/xen/$1" <<END
name = "$1"
kernel = "/usr/share/oxen/guest/vmlinuz"
ramdisk = "/usr/share/oxen/guest/initrd.gz"
memory = 144
extra = "console=hvc0 guest.serve=1 guest.ip=192.168.77.$2/24"
vif = ["bridge=xenbr0"]
$3
END
}
# Has guest 192.168.77.`$1` run `$2`; its output goes to /run/answer.
ask() { echo "in guest $1: $(echo "$2" | cut -c1-120)"; echo "$2" | timeout 60 nc -w 40 "192.168.77.$1" 7000 >/run/answer; grep -q "^status 0" /run/answer; }
must_answer() { ask "$1" "$2" || { logs; fail "in guest $1, \`$2\`: $(cat /run/answer)"; }; }
# Sends `$2` MiB of noise to guest 192.168.77.`$1`, which has to have got what was sent.
must_carry() {
    echo "in guest $1: to carry $2 MiB"
    dd if=/dev/urandom of=/run/noise bs=64k count=16 2>/dev/null
    noise() { n=0; while [ $n -lt "$1" ]; do cat /run/noise; n=$((n + 1)); done; }
    sum=$(noise "$2" | md5sum)
    got=$(noise "$2" | timeout $(($2 * 10 + 60)) nc -w 60 "192.168.77.$1" 7001)
    rm /run/noise
    [ "$got" = "$sum" ] || fail "$2 MiB over TCP arrive as '$got' instead of '$sum'"
}

# What there is of guests on the host. Free memory is told in units of 256 KiB, since dom0's and the hypervisor's own needs vary a little.
remains() {
    xm list -l | grep '"name"' | sort
    xm metrics | awk '/^oxen_host_free_memory_bytes/ { print $1, int($2 / 262144) } /^oxen_host_claimed/ || /^oxen_domain_event_channels.*domid="0"/ || /^oxen_domain_grant_frames.*domid="0"/'
    xenstore-ls -f | grep -v -e '^/local/domain/0/memory/target' -e '^/tool/xenstored'
    losetup -a
    ls /sys/class/net /sys/bus/xen-backend/devices /run/xend
}
remember() { remains >/run/before; }
same() { remains >/run/after; cmp -s /run/before /run/after; }
nothing_left() {
    echo "looking for what is left: $1"
    for try in 1 2 3 4 5 6; do
        same && return
        sleep 1
    done
    diff /run/before /run/after
    logs
    fail "$1: not everything is as before"
}
