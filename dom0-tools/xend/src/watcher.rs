//! Notices that guests end.

use crate::daemon::Daemon;
use oxen_xenstore::Store;
use std::sync::Weak;
use std::time::Duration;

/// Guests are looked at this often even if nothing is heard.
const PERIOD: Duration = Duration::from_secs(2);

/// Looks after guests for as long as the daemon exists. `store` is a connection of its own.
pub fn run(daemon: &Weak<Daemon>, store: &Store) {
    if let Err(error) = store.watch("@releaseDomain", "ended") {
        tracing::error!("cannot watch for the end of guests, they are looked at every {} s only: {error}", PERIOD.as_secs());
    }
    loop {
        match store.next_event(Some(PERIOD)) {
            // Several events in a row need one look.
            Ok(Some(_)) => while matches!(store.next_event(Some(Duration::ZERO)), Ok(Some(_))) {},
            Ok(None) => {}
            Err(error) => {
                tracing::error!("xenstore: {error}");
                std::thread::sleep(PERIOD);
            }
        }
        match daemon.upgrade() {
            Some(daemon) => daemon.look_after_guests(),
            None => return,
        }
    }
}
