# Device interrupts arrive, and in the way that the kernel was told to use.
msi=$(grep -c 'xen-pirq.*msi' /proc/interrupts)
line=$(grep 'xen-pirq.*ioapic' /proc/interrupts | grep -vc -E 'acpi|rtc|i8042|timer|ttyS')
case $(word oxen.irq) in
msi) [ "$msi" -gt 0 ] || fail "no interrupt uses MSI" ;;
line) [ "$msi" = 0 ] && [ "$line" -gt 0 ] || fail "$msi interrupts use MSI, $line use lines" ;;
esac
ok
