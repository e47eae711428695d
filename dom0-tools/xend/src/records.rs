//! What the daemon must not forget: its guests, in a small database. Memory and file never differ: the file is written first.

use oxen_guest_config::{GuestConfig, Uuid};
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
}

/// A failure of the database.
pub type Error = Box<redb::Error>;

/// All guests.
#[derive(Debug)]
pub struct Records {
    database: Database,
    guests: Mutex<BTreeMap<Uuid, Record>>,
}

impl Records {
    /// Opens or creates the database.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened, is damaged, or is in use by another daemon.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let database = Database::create(path).map_err(boxed)?;
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
        Ok(Self { database, guests: Mutex::new(guests) })
    }

    /// Every record.
    pub fn all(&self) -> Vec<Record> {
        self.lock().values().cloned().collect()
    }

    /// A guest's record.
    pub fn get(&self, uuid: Uuid) -> Option<Record> {
        self.lock().get(&uuid).cloned()
    }

    /// The record of the guest with this name.
    pub fn named(&self, name: &str) -> Option<Record> {
        self.lock().values().find(|record| record.config.name == name).cloned()
    }

    /// Writes a record.
    ///
    /// # Errors
    ///
    /// When the disk is full or fails; nothing has changed then.
    pub fn put(&self, record: Record) -> Result<(), Error> {
        let mut guests = self.lock();
        let json = serde_json::to_vec(&record).map_err(|error| boxed(redb::StorageError::Corrupted(error.to_string())))?;
        self.write(|table| table.insert(record.uuid.as_bytes().as_slice(), json.as_slice()).map(drop))?;
        guests.insert(record.uuid, record);
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

    /// Forgets a guest.
    ///
    /// # Errors
    ///
    /// As [`Records::put`].
    pub fn remove(&self, uuid: Uuid) -> Result<(), Error> {
        let mut guests = self.lock();
        self.write(|table| table.remove(uuid.as_bytes().as_slice()).map(drop))?;
        guests.remove(&uuid);
        Ok(())
    }

    fn write(&self, work: impl FnOnce(&mut redb::Table<'_, &'static [u8], &'static [u8]>) -> Result<(), redb::StorageError>) -> Result<(), Error> {
        let write = self.database.begin_write().map_err(boxed)?;
        work(&mut write.open_table(TABLE).map_err(boxed)?).map_err(boxed)?;
        write.commit().map_err(boxed)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Uuid, Record>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn boxed(error: impl Into<redb::Error>) -> Error {
    Box::new(error.into())
}
