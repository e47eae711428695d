//! What the daemon must not forget: its guests, in a small database. Memory and file never differ: the file is written first.

use oxen_guest_config::{GuestConfig, Mac, Uuid};
use redb::{Database, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Records as JSON by UUID.
const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("guests");

/// How far a guest's life has got, as far as a restarted daemon has to know it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// It does not run.
    #[default]
    Halted,
    /// It is being created: what there is of it is undone after a restart of the daemon.
    Creating,
    /// It has been created.
    Running,
    /// It has ended and is kept for examination.
    Preserved,
    /// It is being destroyed, which is finished after a restart of the daemon.
    Destroying,
}

/// A guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its UUID.
    pub uuid: Uuid,
    /// Its configuration.
    pub config: GuestConfig,
    /// Whether it is kept when it does not run.
    pub managed: bool,
    /// Where it is in its life.
    pub stage: Stage,
    /// Its domain id, once it is known.
    pub domid: Option<u16>,
    /// When it started, in seconds since 1970.
    pub started_at: Option<u64>,
    /// When it was restarted by itself lately, in seconds since 1970.
    #[serde(default)]
    pub restarts: Vec<u64>,
    /// It has ended and starts again: a daemon that finds this broken off carries it on.
    #[serde(default)]
    pub returning: bool,
    /// The device that is being attached or detached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugging: Option<Plugging>,
}

/// A change of a guest's devices that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Plugging {
    /// A disk with this number comes.
    AttachDisk(u32),
    /// A disk with this number goes.
    DetachDisk(u32),
    /// A card with this address comes.
    AttachVif(Mac),
    /// A card with this address goes.
    DetachVif(Mac),
}

/// A failure of the database.
pub type Error = Box<redb::Error>;

/// Opens the database.
type Open = dyn Fn() -> Result<Database, redb::DatabaseError> + Send + Sync;

/// All guests.
pub struct Records {
    open: Box<Open>,
    state: Mutex<State>,
}

struct State {
    /// `None` after a failure: the library refuses everything until the file is opened again.
    database: Option<Database>,
    guests: BTreeMap<Uuid, Record>,
}

impl Records {
    /// Opens or creates the database.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened, is damaged, or is in use by another daemon.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let path = path.to_owned();
        Self::over(Box::new(move || Database::create(&path)))
    }

    fn over(open: Box<Open>) -> Result<Self, Error> {
        let database = open().map_err(boxed)?;
        let mut guests = BTreeMap::new();
        let write = database.begin_write().map_err(boxed)?;
        {
            let table = write.open_table(TABLE).map_err(boxed)?;
            for entry in table.iter().map_err(boxed)? {
                let (key, value) = entry.map_err(boxed)?;
                match serde_json::from_slice::<Record>(value.value()) {
                    Ok(record) => {
                        guests.insert(record.uuid, record);
                    }
                    Err(error) => tracing::error!("the record of guest {:02x?} is not understood and left alone: {error}", key.value()),
                }
            }
        }
        write.commit().map_err(boxed)?;
        Ok(Self { open, state: Mutex::new(State { database: Some(database), guests }) })
    }

    /// Every record.
    pub fn all(&self) -> Vec<Record> {
        self.lock().guests.values().cloned().collect()
    }

    /// A guest's record.
    pub fn get(&self, uuid: Uuid) -> Option<Record> {
        self.lock().guests.get(&uuid).cloned()
    }

    /// The record of the guest with this name.
    pub fn named(&self, name: &str) -> Option<Record> {
        self.lock().guests.values().find(|record| record.config.name == name).cloned()
    }

    /// Writes a record.
    ///
    /// # Errors
    ///
    /// When the disk is full or fails; nothing has changed then.
    pub fn put(&self, record: Record) -> Result<(), Error> {
        let mut state = self.lock();
        let json = serde_json::to_vec(&record).map_err(|error| boxed(redb::StorageError::Corrupted(error.to_string())))?;
        self.write(&mut state, |table| table.insert(record.uuid.as_bytes().as_slice(), json.as_slice()).map(drop))?;
        state.guests.insert(record.uuid, record);
        Ok(())
    }

    /// Changes a record, if it exists; returns it.
    ///
    /// # Errors
    ///
    /// As [`Records::put`].
    pub fn update(&self, uuid: Uuid, change: impl FnOnce(&mut Record)) -> Result<Option<Record>, Error> {
        let Some(mut record) = self.get(uuid) else { return Ok(None) };
        change(&mut record);
        self.put(record.clone())?;
        Ok(Some(record))
    }

    /// Changes a record in memory only: in what a restarted daemon finds out without it.
    pub fn note(&self, uuid: Uuid, change: impl FnOnce(&mut Record)) {
        if let Some(record) = self.lock().guests.get_mut(&uuid) {
            change(record);
        }
    }

    /// Forgets a guest.
    ///
    /// # Errors
    ///
    /// As [`Records::put`].
    pub fn remove(&self, uuid: Uuid) -> Result<(), Error> {
        let mut state = self.lock();
        self.write(&mut state, |table| table.remove(uuid.as_bytes().as_slice()).map(drop))?;
        state.guests.remove(&uuid);
        Ok(())
    }

    fn write(&self, state: &mut State, work: impl FnOnce(&mut redb::Table<'_, &'static [u8], &'static [u8]>) -> Result<(), redb::StorageError>) -> Result<(), Error> {
        let database = match state.database.take() {
            Some(database) => database,
            None => (self.open)().map_err(boxed)?,
        };
        change(&database, work)?;
        state.database = Some(database);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn change(database: &Database, work: impl FnOnce(&mut redb::Table<'_, &'static [u8], &'static [u8]>) -> Result<(), redb::StorageError>) -> Result<(), Error> {
    let write = database.begin_write().map_err(boxed)?;
    work(&mut write.open_table(TABLE).map_err(boxed)?).map_err(boxed)?;
    write.commit().map_err(boxed)
}

fn boxed(error: impl Into<redb::Error>) -> Error {
    Box::new(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// A file that outlives the database, on a disk that can be full.
    #[derive(Clone, Debug, Default)]
    struct Disk {
        bytes: Arc<Mutex<Vec<u8>>>,
        full: Arc<AtomicBool>,
    }

    impl Disk {
        fn room(&self) -> io::Result<()> {
            if self.full.load(Ordering::Relaxed) { Err(rustix::io::Errno::NOSPC.into()) } else { Ok(()) }
        }
    }

    impl redb::StorageBackend for Disk {
        fn len(&self) -> io::Result<u64> {
            Ok(self.bytes.lock().unwrap().len() as u64)
        }

        fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
            Ok(self.bytes.lock().unwrap()[offset as usize..][..len].to_vec())
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.room()?;
            self.bytes.lock().unwrap().resize(len as usize, 0);
            Ok(())
        }

        fn sync_data(&self, _: bool) -> io::Result<()> {
            self.room()
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.room()?;
            self.bytes.lock().unwrap()[offset as usize..][..data.len()].copy_from_slice(data);
            Ok(())
        }
    }

    fn open(disk: &Disk) -> Records {
        let disk = disk.clone();
        Records::over(Box::new(move || Database::builder().create_with_backend(disk.clone()))).unwrap()
    }

    fn record(name: &str) -> Record {
        let config = GuestConfig { name: name.to_owned(), ..GuestConfig::default() };
        Record { uuid: Uuid::new_v4(), config, managed: true, stage: Stage::Halted, domid: None, started_at: None, restarts: Vec::new(), returning: false, plugging: None }
    }

    #[test]
    fn a_full_disk_is_an_error_until_there_is_room() {
        let disk = Disk::default();
        let records = open(&disk);
        let (one, other) = (record("one"), record("other"));
        records.put(one.clone()).unwrap();
        disk.full.store(true, Ordering::Relaxed);
        for _ in 0..2 {
            let error = records.put(other.clone()).unwrap_err();
            assert!(error.to_string().contains("No space left"), "{error}");
            records.remove(one.uuid).unwrap_err();
        }
        assert_eq!(records.all(), [one.clone()]);
        disk.full.store(false, Ordering::Relaxed);
        records.put(other.clone()).unwrap();
        records.remove(one.uuid).unwrap();
        drop(records);
        assert_eq!(open(&disk).all(), [other]);
    }
}
