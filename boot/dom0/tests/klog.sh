# Nothing that Linux calls a bug or a warning in the kernel's log.
bad=$(dmesg | grep -E 'BUG:|Oops|WARNING:|general protection|soft lockup|rcu.*(stall|starved)|Call Trace|invalid opcode|Bad page|unhandled|hung task' | head -n 3)
[ -z "$bad" ] || { dmesg | grep -A 40 -m 1 -E 'BUG:|Oops|WARNING:|general protection|stall|Call Trace'; fail "$(echo "$bad" | tr '\n' ';')"; }
ok
