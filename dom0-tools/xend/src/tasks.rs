//! Operations under way and the latest that have ended.

use oxen_xend_api::{Busy, Code, Error, Outcome, Progress, Status, Task};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use uuid::Uuid;

/// How many tasks are remembered after their end.
const KEPT: usize = 200;

/// Now, in seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// All tasks.
#[derive(Debug)]
pub struct Tasks {
    state: Mutex<State>,
    /// Counts changes, for those who wait.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    tasks: BTreeMap<u64, Task>,
    /// What is being done with each guest.
    busy: HashMap<Uuid, Busy>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self { state: Mutex::default(), changed: watch::channel(0).0 }
    }
}

impl Tasks {
    /// Begins an operation on a guest: only one at a time.
    ///
    /// # Errors
    ///
    /// [`Code::Busy`] with what is being done and since when.
    pub fn begin(self: &Arc<Self>, operation: &str, uuid: Uuid, name: &str) -> Result<Job, Error> {
        let mut state = self.lock();
        if let Some(busy) = state.busy.get(&uuid) {
            let seconds = now().saturating_sub(busy.since);
            return Err(Error::new(Code::Busy, format!("{name} is busy: {} has been under way for {seconds} s", busy.operation)).about(name));
        }
        let id = state.next + 1;
        state.next = id;
        state.busy.insert(uuid, Busy { operation: operation.to_owned(), task: Some(id), since: now() });
        let task = Task {
            id,
            revision: 1,
            operation: operation.to_owned(),
            domain: name.to_owned(),
            uuid: uuid.to_string(),
            started_at: now(),
            status: Status::Running { progress: Progress::default() },
        };
        state.tasks.insert(id, task);
        drop(state);
        Ok(Job { tasks: Arc::clone(self), id, uuid, released: false })
    }

    /// What is being done with a guest.
    pub fn busy(&self, uuid: Uuid) -> Option<Busy> {
        self.lock().busy.get(&uuid).cloned()
    }

    /// A task.
    pub fn get(&self, id: u64) -> Option<Task> {
        self.lock().tasks.get(&id).cloned()
    }

    /// All tasks that are remembered.
    pub fn all(&self) -> Vec<Task> {
        self.lock().tasks.values().cloned().collect()
    }

    /// Tells of changes.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn set(&self, id: u64, status: Status) {
        let mut state = self.lock();
        if let Some(task) = state.tasks.get_mut(&id) {
            task.status = status;
            task.revision += 1;
        }
        let ended: Vec<u64> = state.tasks.values().filter(|task| task.ended()).map(|task| task.id).collect();
        for id in ended.iter().take(ended.len().saturating_sub(KEPT)) {
            state.tasks.remove(id);
        }
        drop(state);
        self.changed.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to work on a guest. It ends with [`Job::finish`]; when it is dropped before, the task has failed.
#[derive(Debug)]
pub struct Job {
    tasks: Arc<Tasks>,
    id: u64,
    uuid: Uuid,
    released: bool,
}

impl Job {
    /// The task.
    pub fn task(&self) -> Option<Task> {
        self.tasks.get(self.id)
    }

    /// Says what is being done.
    pub fn step(&self, step: &str) {
        self.progress(step, 0, 0);
    }

    /// Says what is being done and how far it has got.
    pub fn progress(&self, step: &str, done: u64, total: u64) {
        tracing::debug!("task {}: {step}", self.id);
        self.tasks.set(self.id, Status::Running { progress: Progress { step: step.to_owned(), done, total } });
    }

    /// Lets others work on the guest while this task goes on waiting for something.
    pub fn release(&mut self) {
        if !self.released {
            self.released = true;
            self.tasks.lock().busy.remove(&self.uuid);
        }
    }

    /// Ends the task.
    pub fn finish(mut self, result: Result<Outcome, Error>) {
        self.release();
        let status = match result {
            Ok(outcome) => Status::Done { outcome: Box::new(outcome) },
            Err(error) => Status::Failed { error },
        };
        self.tasks.set(self.id, status);
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.release();
        if self.task().is_some_and(|task| !task.ended()) {
            self.tasks.set(self.id, Status::Failed { error: Error::new(Code::Internal, "the operation broke off; the daemon's log says more") });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_operation_at_a_time_per_guest() {
        let tasks = Arc::new(Tasks::default());
        let (a, b) = (Uuid::new_v4(), Uuid::new_v4());
        let job = tasks.begin("create", a, "a").unwrap();
        let error = tasks.begin("destroy", a, "a").unwrap_err();
        assert_eq!(error.code, Code::Busy);
        assert!(error.message.contains("create"), "{error}");
        tasks.begin("create", b, "b").unwrap().finish(Ok(Outcome::Nothing));
        let id = job.task().unwrap().id;
        job.finish(Ok(Outcome::Nothing));
        assert!(tasks.get(id).unwrap().ended());
        tasks.begin("destroy", a, "a").unwrap();
    }

    #[test]
    fn a_job_that_breaks_off_has_failed() {
        let tasks = Arc::new(Tasks::default());
        let job = tasks.begin("create", Uuid::new_v4(), "a").unwrap();
        let id = job.task().unwrap().id;
        drop(job);
        assert!(matches!(tasks.get(id).unwrap().status, Status::Failed { .. }));
    }

    #[test]
    fn old_tasks_are_forgotten() {
        let tasks = Arc::new(Tasks::default());
        for _ in 0..KEPT + 50 {
            tasks.begin("pause", Uuid::new_v4(), "a").unwrap().finish(Ok(Outcome::Nothing));
        }
        assert_eq!(tasks.all().len(), KEPT);
    }
}
