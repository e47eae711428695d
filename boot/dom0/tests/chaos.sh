# The daemons are killed at random points of everything that is done with guests. Afterwards every guest that runs is known, and
# nothing is left of the others. `oxen.seed` and `oxen.rounds` repeat and prolong it.
. /tests/xm-tools.sh
start_stack
seed=$(word oxen.seed); rounds=$(word oxen.rounds)
seed=${seed:-$(date +%s)} rounds=${rounds:-24}
echo "chaos: oxen.seed=$seed, $rounds rounds"
# Sets `r` to a random number below `$1`.
random() { seed=$(((seed * 1103515245 + 12345) % 2147483648)); r=$(((seed >> 12) % $1)); }
start_daemon() {
    case $1 in
    xend) start_xend ;;
    xenstored) xenstored >>/var/log/xen/xenstored.out 2>&1 & ;;
    xenconsoled) xenconsoled >>/var/log/xen/xenconsoled.out 2>&1 & ;;
    esac
}
for name in a b c d; do
    truncate -s 1M /run/$name.img /run/$name-2.img
    small $name act=obey "disk = [\"file:/run/$name.img,xvda,w\"]
vif = [\"bridge=xenbr0\"]"
done
must create a
must shutdown -w a
must_go a
remember

# One operation on guest `$1`; that it fails is part of the game.
operation() {
    case $2 in
    0 | 1 | 2) xm create "$1" ;;
    3) xm destroy "$1" ;;
    4) xm shutdown -w -t 5 "$1" ;;
    5) xm block-attach "$1" "file:/run/$1-2.img,xvdb,w" ;;
    6) xm block-detach "$1" xvdb --force ;;
    7) xm reboot "$1" ;;
    esac
}
# Whether what xenstore and domain 0's kernel have of guests belongs to guests that run and that xend knows.
consistent() {
    xm list -l >/run/known 2>/run/err || return
    domids=$(sed -n 's/^ *"domid": \([0-9]*\),*$/\1/p' /run/known | sort -n | tr '\n' ' ')
    for domid in $(xm list | awk 'NR > 1 && $2 > 0 { print $2 }'); do
        name=$(xm domname "$domid") && xm list -l "$name" | grep -q '"config": {' || { echo "domain $domid, $name, is not known" >/run/wrong; return 1; }
        case $(xm list -l "$name" | sed -n 's/^ *"state": "\(.*\)".*/\1/p') in creating | dying | crashed) echo "$name is not whole" >/run/wrong; return 1 ;; esac
    done
    for path in /local/domain /libxl /local/domain/0/backend/vbd /local/domain/0/backend/vif /local/domain/0/backend/console; do
        for domid in $(xenstore-ls -f $path 2>/dev/null | sed -n "s,^$path/\([0-9]*\)[ /].*,\1,p" | sort -un); do
            case " $domids" in *" $domid "*) ;; *) echo "$path/$domid is left" >/run/wrong; return 1 ;; esac
        done
    done
    vms=$(xenstore-ls -f /vm 2>/dev/null | grep -c '^/vm/[^/]* =')
    running=$(xm list | awk 'NR > 1 && $2 > 0' | wc -l)
    [ "$vms" = "$running" ] || { echo "$vms directories below /vm for $running guests" >/run/wrong; return 1; }
    disks=$(xenstore-ls -f /local/domain/0/backend/vbd 2>/dev/null | grep -c '/physical-device =')
    [ "$(losetup -a | wc -l)" = "$disks" ] || { echo "$(losetup -a | wc -l) loop devices for $disks disks" >/run/wrong; return 1; }
    for interface in /sys/class/net/vif*; do
        [ -d "$interface" ] || continue
        domid=${interface##*/vif}
        case " $domids" in *" ${domid%.*} "*) ;; *) echo "${interface##*/} is left" >/run/wrong; return 1 ;; esac
    done
}
round=1
while [ $round -le "$rounds" ]; do
    random 4; name=$(echo a b c d | cut -d' ' -f$((r + 1)))
    random 4; other=$(echo a b c d | cut -d' ' -f$((r + 1)))
    random 8; first=$r
    random 8; second=$r
    random 5; daemon=$(echo xend xend xend xenstored xenconsoled | cut -d' ' -f$((r + 1)))
    random 600; after=$r
    step="round $round: $first on $name, $second on $other, kill $daemon after $after ms"
    operation $name $first >/run/chaos.1 2>&1 & one=$!
    operation $other $second >/run/chaos.2 2>&1 & two=$!
    usleep $((after * 1000))
    kill -9 "$(pidof $daemon)"
    random 200; usleep $((r * 1000))
    start_daemon $daemon
    wait $one $two
    : >/run/wrong
    wait_for 30 consistent || { cat /run/chaos.1 /run/chaos.2; logs; xm list; xenstore-ls -f | grep -v '/domain/0/' | head -n 60; losetup -a; fail "$step: $(cat /run/wrong /run/err)"; }
    round=$((round + 1))
done
for daemon in xenstored xenconsoled xend; do pidof $daemon >/dev/null || fail "$daemon does not run"; done
for name in a b c d; do
    is_gone $name || must destroy $name
done
nothing_left chaos
must create a
must_say a "small guest: running"
must destroy a
ok
