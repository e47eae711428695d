# The control stack's benchmark, with the tools that `oxen.tools` names and the parts of `oxen.parts`, or all; `cargo xtask bench-control` reads its lines.
start_bridge || fail "no bridge"
ip addr add 192.168.77.1/24 dev xenbr0
case $(word oxen.tools) in
xl)
    . /tests/xl-tools.sh
    mkdir -p /var/lock /usr/share
    start_xl
    ;;
xm) start_tools || fail "the control stack does not start" ;;
*) fail "oxen.tools must be xl or xm" ;;
esac
oxen-control-bench "$(word oxen.tools)" $(word oxen.parts | tr , ' ') || {
    tail -n 20 /var/log/xen/xen-hotplug.log /var/log/xen/xend.log /var/log/xen/console/guest-*.log 2>/dev/null
    fail "oxen-control-bench ended with $?"
}
ok
