//! Where a daemon is stopped: before or after any of its calls of the hypervisor or requests to xenstored, counted together.

use oxen_abi::Errno;
use oxen_xenctl::fake::Moment;
use std::fmt;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What happens at one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plan {
    /// Nothing.
    #[default]
    Pass,
    /// This step, counted from 0, fails with `EIO` and has no effect.
    Fail(usize),
    /// The daemon is killed before this step.
    KillBefore(usize),
    /// The daemon is killed when this step has had its effect, before it hears of it.
    KillAfter(usize),
    /// The first step fails, and the daemon is killed before the second, a later one.
    FailThenKill(usize, usize),
}

/// What a step may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Go,
    Fail,
    Dead,
}

#[derive(Default)]
struct State {
    plan: Plan,
    steps: usize,
    /// What the plan was carried out at.
    hit: Option<String>,
    dead: bool,
    /// Connections to xenstored, which a killed process closes.
    connections: Vec<UnixStream>,
}

/// One daemon's way to the hypervisor and to xenstored.
#[derive(Default)]
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        write!(f, "{:?} at step {}, hit {:?}", state.plan, state.steps, state.hit)
    }
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts from 0 again, for `plan`.
    pub fn arm(&self, plan: Plan) {
        let mut state = self.lock();
        (state.plan, state.steps, state.hit) = (plan, 0, None);
    }

    /// Steps since [`Gate::arm`].
    pub fn steps(&self) -> usize {
        self.lock().steps
    }

    /// The step that the plan was carried out at, if it has come to that.
    pub fn hit(&self) -> Option<String> {
        self.lock().hit.clone()
    }

    /// Whether the daemon is killed.
    pub fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// Kills the daemon: nothing that it does from now on has an effect.
    pub fn kill(&self) {
        self.die(&mut self.lock());
    }

    fn die(&self, state: &mut State) {
        state.dead = true;
        for connection in state.connections.drain(..) {
            // One that is closed already is as good.
            let _ = connection.shutdown(std::net::Shutdown::Both);
        }
        self.changed.notify_all();
    }

    pub(crate) fn connected(&self, connection: UnixStream) {
        self.lock().connections.push(connection);
    }

    /// Before a step.
    pub(crate) fn before(&self, name: &str) -> Verdict {
        let mut state = self.lock();
        if state.dead {
            return Verdict::Dead;
        }
        let step = state.steps;
        state.steps += 1;
        let verdict = match state.plan {
            Plan::Fail(at) if at == step => Verdict::Fail,
            Plan::KillBefore(at) if at == step => Verdict::Dead,
            Plan::FailThenKill(at, _) if at == step => Verdict::Fail,
            Plan::FailThenKill(_, at) if at == step => Verdict::Dead,
            _ => return Verdict::Go,
        };
        state.hit = Some(format!("step {step}, {name}"));
        if verdict == Verdict::Dead {
            self.die(&mut state);
        }
        verdict
    }

    /// After a step; says whether the daemon lives to see it.
    pub(crate) fn after(&self, name: &str) -> Verdict {
        let mut state = self.lock();
        if state.dead {
            return Verdict::Dead;
        }
        let step = state.steps.wrapping_sub(1);
        if state.plan != Plan::KillAfter(step) {
            return Verdict::Go;
        }
        state.hit = Some(format!("after step {step}, {name}"));
        self.die(&mut state);
        Verdict::Dead
    }

    /// The hypervisor's end: threads of a killed daemon stay where they are.
    pub(crate) fn hypercall(&self, moment: Moment) -> Result<(), Errno> {
        let verdict = match moment {
            Moment::Before => self.before("hypercall"),
            Moment::After => self.after("hypercall"),
        };
        match verdict {
            Verdict::Go => Ok(()),
            Verdict::Fail => Err(Errno::EIO),
            Verdict::Dead => loop {
                std::thread::park();
            },
        }
    }

    /// Waits until the daemon is dead or `done` says so.
    pub fn wait(&self, mut done: impl FnMut() -> bool) {
        let start = Instant::now();
        let mut state = self.lock();
        while !state.dead {
            drop(state);
            if done() {
                return;
            }
            assert!(start.elapsed() < crate::PATIENCE, "nothing happens: {self:?}");
            let pause = Duration::from_millis(1);
            state = self.changed.wait_timeout(self.lock(), pause).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A gate's end for the hypervisor.
pub(crate) fn hook(gate: &Arc<Gate>) -> Box<oxen_xenctl::fake::Hook> {
    let gate = Arc::clone(gate);
    Box::new(move |moment| gate.hypercall(moment))
}
