# Processes, pipes, signals, memory: what every program does, many times.
i=0
while [ $i -lt 40 ]; do busybox true || fail "exec $i"; i=$((i + 1)); done
[ "$(seq 1 10000 | sort -n | tail -n 1)" = 10000 ] || fail "pipeline"
sleep 60 & child=$!
kill -TERM $child; wait $child
[ $? = 143 ] || fail "signal"
awk 'BEGIN { for (i = 0; i < 8000; i++) a[i] = "value " i; s = 0; for (i in a) s++; exit s != 8000 }' || fail "memory"
awk 'BEGIN { x = 0; for (i = 1; i <= 20000; i++) x += i / 3; exit (x > 66669999 && x < 66670001) ? 0 : 1 }' || fail "floating point"
busybox sh -c 'kill -SEGV $$'; [ $? = 139 ] || fail "segmentation fault"
ok
