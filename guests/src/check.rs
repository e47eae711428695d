//! Observations, checks and the verdict.

use crate::{hypercall, say, sys};
use core::cell::UnsafeCell;
use core::fmt::{self, Display};
use core::sync::atomic::{AtomicU32, Ordering};

struct State {
    name: &'static str,
    first_failure: Option<&'static str>,
}

struct StateCell(UnsafeCell<State>);
// SAFETY: only the boot vCPU records and reports, and traps that interrupt it do so only to end the kernel.
unsafe impl Sync for StateCell {}

static STATE: StateCell = StateCell(UnsafeCell::new(State { name: "unnamed", first_failure: None }));
static PANICS: AtomicU32 = AtomicU32::new(0);

fn with_state<R>(f: impl FnOnce(&mut State) -> R) -> R {
    // SAFETY: see `StateCell`; `f` never calls back into this function.
    f(unsafe { &mut *STATE.0.get() })
}

/// Sets the kernel's name for the verdict.
pub fn begin(name: &'static str) {
    with_state(|s| s.name = name);
}

/// Records that the check called `name` failed; the verdict names the first.
pub fn fail(name: &'static str) {
    with_state(|s| {
        s.first_failure.get_or_insert(name);
    });
}

/// Prints an observation on which hypervisors must agree.
pub fn value(name: &str, value: &dyn Display) {
    say!("VALUE {name} = {value}");
}

/// Prints an observation and fails the kernel unless it is `expected`.
pub fn expect<T: Display + PartialEq>(name: &'static str, actual: T, expected: T) {
    value(name, &actual);
    if actual != expected {
        say!("NOTE {name}: expected {expected}");
        fail(name);
    }
}

/// Prints an observation and fails the kernel unless it prints as `expected`.
pub fn expect_text(name: &'static str, actual: &dyn Display, expected: &str) {
    value(name, actual);
    if !prints_as(actual, expected) {
        say!("NOTE {name}: expected {expected}");
        fail(name);
    }
}

/// Whether `value` is displayed as exactly `expected`.
pub fn prints_as(value: &dyn Display, expected: &str) -> bool {
    struct Matcher<'a>(Option<&'a str>);
    impl fmt::Write for Matcher<'_> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0 = self.0.and_then(|rest| rest.strip_prefix(text));
            Ok(())
        }
    }
    let mut matcher = Matcher(Some(expected));
    let _ = fmt::write(&mut matcher, format_args!("{value}"));
    matcher.0 == Some("")
}

/// Fails the kernel unless `condition` holds; prints nothing when it does.
pub fn check(name: &'static str, condition: bool) {
    if !condition {
        say!("NOTE {name}: check failed");
        fail(name);
    }
}

/// Prints the verdict and ends the machine.
pub fn finish() -> ! {
    let (name, first_failure) = with_state(|s| (s.name, s.first_failure));
    match first_failure {
        None => say!("VERDICT: ok {name}"),
        Some(failure) => say!("VERDICT: FAIL {name}: {failure}"),
    }
    power_off()
}

/// Prints the verdict and then calls `fatal`, which must end the domain; says so if it did not.
pub fn die(fatal: impl FnOnce()) {
    let (name, first_failure) = with_state(|s| (s.name, s.first_failure));
    if first_failure.is_some() {
        finish();
    }
    say!("VERDICT: ok {name}");
    fatal();
    abort(format_args!("the domain survived"))
}

/// Ends the kernel with a failing verdict that says `reason`.
pub fn abort(reason: fmt::Arguments<'_>) -> ! {
    let name = with_state(|s| s.name);
    say!("VERDICT: FAIL {name}: {reason}");
    power_off()
}

/// Body of the panic handler.
pub fn panicked(info: &core::panic::PanicInfo<'_>) -> ! {
    if PANICS.fetch_add(1, Ordering::Relaxed) == 0 {
        let line = info.location().map_or(0, core::panic::Location::line);
        let file = info.location().map_or("?", core::panic::Location::file);
        abort(format_args!("panic at {file}:{line}: {}", info.message()))
    }
    power_off()
}

/// Ends the machine: S5 through the platform call, as a dom0 does, then the shutdown call.
pub fn power_off() -> ! {
    // PM1 control values of S5 on QEMU's machines: SLP_TYP 0 with SLP_EN (bit 13).
    let mut op = sys::PlatformOp::new(sys::PLATFORM_ENTER_ACPI_SLEEP);
    // The second word's half is the sleep state, S5.
    op.body[0] = 0x0000_0005_2000_2000;
    hypercall::raw(sys::nr::PLATFORM_OP, [hypercall::handle(&mut op), 0, 0, 0, 0]);
    loop {
        let mut reason = sys::SHUTDOWN_POWEROFF;
        hypercall::sched_op(sys::SCHEDOP_SHUTDOWN, &mut reason);
    }
}

/// Prints `VALUE name = value`.
#[macro_export]
macro_rules! value {
    ($name:expr, $value:expr) => { $crate::check::value($name, &$value) };
}

/// Prints `VALUE name = actual`, and fails the kernel unless it equals the expected value.
#[macro_export]
macro_rules! expect {
    ($name:expr, $actual:expr, $expected:expr) => { $crate::check::expect($name, $actual, $expected) };
}

/// Prints `VALUE name = actual`, and fails the kernel unless that prints as the expected text.
#[macro_export]
macro_rules! expect_text {
    ($name:expr, $actual:expr, $expected:expr) => { $crate::check::expect_text($name, &$actual, $expected) };
}

/// Fails the kernel, by name, unless the condition holds.
#[macro_export]
macro_rules! check {
    ($name:expr, $condition:expr) => { $crate::check::check($name, $condition) };
}
