# For tests with Debian's own tools: starting them, and words for what they tell.
PATH=/usr/lib/xen-4.17/bin:$PATH

start_xl() {
    mkdir -p /var/lib/xen /var/lib/xenstored /var/log/xen/console /run/xen /run/xenstored /etc/xen
    echo >/etc/xen/xl.conf
    [ -e /var/run ] || ln -s /run /var/run
    [ -S /run/xenstored/socket ] && return
    xenstored --pid-file /run/xenstored.pid >/run/xl 2>&1 || fail "xenstored: $(tail -n 1 /run/xl)"
    wait_for 20 [ -S /run/xenstored/socket ] || fail "xenstored made no socket"
    timeout 60 xen-init-dom0 >/run/xl 2>&1 || fail "xen-init-dom0: $(tail -n 1 /run/xl)"
    xenconsoled --log=guest --log-dir=/var/log/xen/console --pid-file=/run/xenconsoled.pid >/run/xl 2>&1 || fail "xenconsoled: $(tail -n 1 /run/xl)"
}

# Runs xl, which has to succeed; its words go to /run/xl.
must() { timeout 240 xl "$@" >/run/xl 2>&1 || { cat /run/xl; fail "xl $*: $(tail -n 1 /run/xl)"; }; }
free_mib() { xl info | sed -n 's/^free_memory *: //p'; }
# State column of a guest.
state() { xl list "$1" 2>/dev/null | awk 'NR == 2 { print $5 }'; }
is_gone() { ! xl list "$1" >/dev/null 2>&1; }
says() { grep -q "$2" "/var/log/xen/console/guest-$1.log" 2>/dev/null; }
# Waits for a line on a guest's console.
must_say() { wait_for "${3:-90}" says "$1" "$2" || { tail -n 30 "/var/log/xen/console/guest-$1.log"; fail "guest $1 does not say '$2'; state $(state "$1")"; }; }
# config NAME KERNEL-WORDS VCPUS [MORE LINES]
config() {
    cat >"/run/$1.cfg" <<END
name    = "$1"
kernel  = "/usr/share/oxen/guest/vmlinuz"
ramdisk = "/usr/share/oxen/guest/initrd.gz"
extra   = "console=hvc0 earlyprintk=xen $2"
memory  = 160
vcpus   = $3
$4
END
}
