# Two guests with disks and network cards, made and ended with our own tools, and nothing of them left.
start_bridge || fail "no bridge"
start_tools || fail "the control stack does not start"
ip addr add 192.168.77.1/24 dev xenbr0

# Makes the configuration of guest `$1` with address 192.168.77.`$2`.
configure() {
    truncate -s 32M /var/lib/xen/images/$1.img
    cat >/etc/xen/$1 <<END
name = "$1"
kernel = "/usr/share/oxen/guest/vmlinuz"
ramdisk = "/usr/share/oxen/guest/initrd.gz"
memory = 160
vcpus = 1
extra = "console=hvc0 guest.serve=1 guest.ip=192.168.77.$2/24"
disk = ["file:/var/lib/xen/images/$1.img,xvda,w"]
vif = ["bridge=xenbr0"]
on_poweroff = "destroy"
on_crash = "destroy"
END
}
# Asks guest 192.168.77.`$1` to run `$2`.
ask() { echo "$2" | nc -w 20 "192.168.77.$1" 7000; }
# Waits until guest `$1` says `$2` on its console.
says() { wait_for 90 grep -qs "$2" "/var/log/xen/console/guest-$1.log" || { tail -n 20 "/var/log/xen/console/guest-$1.log"; tail -n 20 /var/log/xen/xend.log; fail "$1 does not say '$2'"; }; }

configure first 11
configure second 12
free=$(xm info | sed -n 's/^free_memory *: //p')
xm create first || { tail -n 20 /var/log/xen/xend.log; fail "xm create ended with $?"; }
says first "guest: serving"
grep -q "/dev/xvda on /mnt/xvda" /var/log/xen/console/guest-first.log || fail "the first guest has no disk"
xm list
xm list | grep -q '^first  *[0-9]* *16[0-9] ' || fail "xm list does not show the guest"
ping -c 2 -W 5 192.168.77.11 >/dev/null || fail "the guest does not answer a ping"
ask 11 "dd if=/dev/urandom of=/mnt/xvda/f bs=64k count=64 2>/dev/null; md5sum </mnt/xvda/f" | grep -q "status 0" || fail "the guest cannot write its disk"
sum=$(dd if=/dev/zero bs=64k count=64 2>/dev/null | md5sum)
got=$(dd if=/dev/zero bs=64k count=64 2>/dev/null | nc -w 30 192.168.77.11 7001)
[ "$got" = "$sum" ] || fail "4 MiB over TCP arrive as '$got' instead of '$sum'"
xm create second >/dev/null || { tail -n 20 /var/log/xen/xend.log; fail "the second guest: xm create ended with $?"; }
says second "guest: serving"
ask 12 "ping -c 2 -W 5 192.168.77.11 >/dev/null" | grep -q "status 0" || fail "the guests do not reach each other"
xm pause second && xm list | grep '^second.*[r-][b-]p---' >/dev/null || fail "the guest is not paused"
xm unpause second || fail "cannot unpause"
xm create first 2>/run/error && fail "a name can be used twice"
[ "$(cat /run/error | wc -l)" -le 2 ] || { cat /run/error; fail "the error is not one line"; }
xm mem-set first 120 || fail "mem-set ended with $?"
wait_for 20 sh -c "[ \$(xm list | sed -n 's/^first  *[0-9]*  *\\([0-9]*\\) .*/\\1/p') -le 122 ]" || { xm list; fail "the balloon does not shrink"; }
xm shutdown -w -t 60 first || { tail -n 20 /var/log/xen/xend.log; fail "shutdown ended with $?"; }
wait_for 20 sh -c "! xm domid first >/dev/null 2>&1" || fail "the guest is still there"
xm destroy second || fail "destroy ended with $?"
wait_for 20 sh -c "[ \$(xm list | wc -l) = 2 ]" || { xm list; fail "guests are left"; }
left=$(xm info | sed -n 's/^free_memory *: //p')
[ "$left" -ge "$((free - 1))" ] || fail "free memory: $free MiB before, $left MiB after"
ls /sys/class/net | grep -q '^vif' && fail "network interfaces are left"
losetup -a 2>/dev/null | grep -q images && fail "loop devices are left"
ok
