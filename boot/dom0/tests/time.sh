# Time never steps back, sleeping takes as long as asked, the calendar is plausible.
now() { set -- $(cat /proc/uptime); whole=${1%.*}; part=${1#*.}; echo $((whole * 100 + 1${part} - 100)); }
[ "$(date +%Y)" -ge 2024 ] || fail "the year is $(date +%Y)"
last=$(now)
for i in $(seq 1 100); do
    t=$(now)
    [ "$t" -ge "$last" ] || fail "uptime went from $last to $t hundredths"
    last=$t
done
a=$(now); d=$(date +%s); sleep 3; b=$(now); e=$(date +%s)
took=$((b - a))
{ [ $took -ge 298 ] && [ $took -le 600 ]; } || fail "sleep 3 took $took hundredths"
steps=$((e - d))
{ [ $steps -ge 2 ] && [ $steps -le 7 ]; } || fail "the calendar moved $steps s in sleep 3"
ok
