# The micro-benchmarks; `cargo xtask bench` reads their lines.
oxen-bench || fail "oxen-bench ended with $?"
ok
