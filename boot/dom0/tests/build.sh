# The domain builder alone, without xenstore: a guest is built, runs on its virtual CPUs, and is destroyed without a trace.
guest=/usr/share/oxen/guest
free() { xm info | sed -n 's/^free_memory *: //p'; }
before=$(free)
domain-build $guest/vmlinuz --memory 8 >/run/build 2>&1 && fail "a guest of 8 MiB was built: $(cat /run/build)"
grep -q 'too little memory' /run/build || fail "too little memory is not told: $(cat /run/build)"
domain-build /etc/udhcpc.sh >/run/build 2>&1 && fail "a script was taken for a kernel"
grep -q 'udhcpc.sh' /run/build || fail "the wrong kernel is not named: $(cat /run/build)"
domain-build $guest/vmlinuz --memory 100000 >/run/build 2>&1 && fail "a guest of 100 GB was built"
grep -q 'not enough free memory' /run/build || fail "missing memory is not told: $(cat /run/build)"
for round in 1 2; do
    timeout 120 domain-build $guest/vmlinuz --ramdisk $guest/initrd.gz --memory 160 --vcpus 2 --cmdline "console=hvc0 earlyprintk=xen" --run --seconds 12 >/run/build 2>&1 || fail "$(tail -n 1 /run/build)"
    cat /run/build
    grep -q 'shut down for None' /run/build || fail "the guest did not keep running: $(cat /run/build)"
    grep -q ' 2 vCPUs online' /run/build || echo "build: the second vCPU is not up yet"
done
sleep 1
[ "$(xm list | wc -l)" = 2 ] || fail "a domain is left: $(xm list)"
after=$(free)
[ "$after" = "$before" ] || fail "free memory was $before MiB and is $after MiB"
ok
