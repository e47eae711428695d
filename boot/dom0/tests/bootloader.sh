# Guests that boot from their own disk, /dev/sda of dom0: by the built-in reader, then by Debian's GRUB for guests.
start_tools || fail "the control stack does not start"

# Waits until guest `$1` says `$2` on its console.
says() { wait_for 120 grep -qs "$2" "/var/log/xen/console/guest-$1.log" || { tail -n 20 "/var/log/xen/console/guest-$1.log"; tail -n 20 /var/log/xen/xend.log; fail "$1 does not say '$2'"; }; }
# Creates guest `$1`, whose configuration has the further lines `$2`, and waits for what its kernel was told and its end.
boots() {
    printf 'name = "%s"\nmemory = 192\ndisk = ["phy:/dev/sda,xvda,w"]\n%s\n' "$1" "$2" >/etc/xen/$1
    xm create "$1" || { tail -n 20 /var/log/xen/xend.log; fail "xm create $1 ended with $?"; }
    says "$1" "guest: user space reached"
    says "$1" "guest: /dev/xvda1 on /mnt/xvda1"
    grep -q "Command line:.* guest.menu=debian" "/var/log/xen/console/guest-$1.log" || fail "$1 was not booted from its menu"
    wait_for 30 sh -c "! xm domid $1 >/dev/null 2>&1" || { xm list; fail "$1 does not end"; }
}

boots builtin 'bootloader = "builtin"
extra = "guest.from=config"'
grep -q "Command line:.* guest.from=config" /var/log/xen/console/guest-builtin.log || fail "the configuration's own words are missing"
[ -z "$(ls /run/xend/boot 2>/dev/null)" ] || { ls -l /run/xend/boot; fail "what was copied from the disk is left"; }
printf 'name = "none"\nmemory = 64\ndisk = ["phy:/dev/sda,xvda,w"]\nbootloader = "builtin"\nbootentry = "windows"\n' >/etc/xen/none
xm create none 2>/run/error && fail "an entry that is not in the menu boots"
grep -q windows /run/error || { cat /run/error; fail "the error does not name the entry"; }
boots pvgrub 'bootloader = "pvgrub"'
ok
