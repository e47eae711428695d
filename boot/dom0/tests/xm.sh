# Every xm verb of the first set answers like Xen's own tools.
xm help >/run/xm 2>&1 || fail "xm help: $(tail -n 1 /run/xm)"
for verb in info list dmesg uptime vcpu-list; do
    xm $verb >/run/xm 2>&1 || fail "xm $verb: $(tail -n 1 /run/xm)"
    [ -s /run/xm ] || fail "xm $verb prints nothing"
    case $verb in dmesg) json= ;; *) json=1 ;; esac
    [ -z "$json" ] || xm $verb --json >/run/xm 2>&1 || fail "xm $verb --json: $(tail -n 1 /run/xm)"
done
xm list | head -n 1 | grep -Eq '^Name +ID +Mem +VCPUs[[:space:]]+State[[:space:]]+Time' || fail "columns of xm list: $(xm list | head -n 1)"
xm list | grep -Eq '^Domain-0 +0 ' || fail "xm list does not show Domain-0"
xm info | grep -Eq "^nr_cpus +: $(word oxen.cpus)\$" || fail "xm info: $(xm info | grep nr_cpus)"
xm top -b -i 2 -d 1 -v >/run/xm 2>&1 || fail "xm top -b: $(tail -n 1 /run/xm)"
[ "$(grep -Ec '^ +Domain-0 r----- ' /run/xm)" = 2 ] && [ "$(grep -c '^VCPUs(sec): ' /run/xm)" = 2 ] || fail "xm top -b prints $(cat /run/xm)"
# On the console, which is a terminal and afterwards what it was.
terminal=$(stty -g </dev/console)
xm top -i 2 -d 1 </dev/console >/dev/console 2>/run/xm || fail "xm top on the console: $(cat /run/xm)"
echo >/dev/console
[ "$(stty -g </dev/console)" = "$terminal" ] || fail "xm top leaves the console as $(stty -a </dev/console)"
xm debug-keys h || fail "xm debug-keys h"
xm dmesg | grep -q 'h' || fail "xm dmesg is empty after debug key h"
ok
