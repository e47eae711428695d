//! The engine against a model: a plain map, changed under the eyes of everybody, one request at a time.

mod common;

use common::{Answer, ask, begin, dump, introduce};
use oxen_xenstore::{Access, Errno, Perm, Perms, XsType, path};
use oxen_xenstored::engine::Engine;
use oxen_xenstored::limits::Limits;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// The simplest store that can be right.
#[derive(Debug, Clone, PartialEq)]
struct Model {
    nodes: BTreeMap<String, (Vec<u8>, Perms)>,
    max_nodes: usize,
}

impl Model {
    fn new(max_nodes: usize) -> Self {
        let mut nodes = BTreeMap::new();
        for path in ["/", "/local", "/local/domain", "/tool", "/tool/xenstored"] {
            nodes.insert(path.to_owned(), (Vec::new(), Perms::owned(0, Access::None)));
        }
        Self { nodes, max_nodes }
    }

    fn nearest(&self, path: &str) -> &str {
        let mut path = path;
        while !self.nodes.contains_key(path) {
            path = path::parent(path).unwrap();
        }
        self.nodes.get_key_value(path).unwrap().0
    }

    /// Whether `domid` may, or the error that says why not.
    fn check(&self, domid: u16, path: &str, may: impl Fn(&Perms) -> bool) -> Result<(), Errno> {
        let _ = domid;
        let allowed = may(&self.nodes[self.nearest(path)].1);
        match (self.nodes.contains_key(path), allowed) {
            (true, true) => Ok(()),
            (false, true) => Err(Errno::ENOENT),
            (_, false) => Err(Errno::EACCES),
        }
    }

    fn children(&self, path: &str) -> Vec<u8> {
        let mut names: Vec<&str> = self
            .nodes
            .keys()
            .filter(|other| other.as_str() != "/" && path::parent(other) == Some(path))
            .map(|child| child.rsplit('/').next().unwrap())
            .collect();
        names.sort_unstable();
        names.iter().flat_map(|name| name.bytes().chain([0])).collect()
    }

    fn owned(&self, domid: u16) -> usize {
        self.nodes.values().filter(|(_, perms)| perms.owner() == domid).count()
    }

    fn write(&mut self, domid: u16, path: &str, value: &[u8], keep: bool) -> Answer {
        match self.check(domid, path, |perms| perms.access(domid).writes()) {
            Ok(()) if keep => {}
            Ok(()) => self.nodes.get_mut(path).unwrap().0 = value.to_vec(),
            Err(Errno::ENOENT) => {
                let nearest = self.nearest(path).to_owned();
                let mut perms = self.nodes[&nearest].1.clone();
                if domid != 0 {
                    perms.set_owner(domid);
                }
                let mut missing = vec![path];
                while path::parent(missing.last().unwrap()).unwrap() != nearest {
                    missing.push(path::parent(missing.last().unwrap()).unwrap());
                }
                if domid != 0 && self.owned(domid) + missing.len() > self.max_nodes {
                    return Err(Errno::ENOSPC);
                }
                for path in &missing {
                    self.nodes.insert((*path).to_owned(), (Vec::new(), perms.clone()));
                }
                self.nodes.get_mut(path).unwrap().0 = value.to_vec();
            }
            Err(errno) => return Err(errno),
        }
        Ok(b"OK\0".to_vec())
    }

    fn apply(&mut self, domid: u16, op: &Op) -> Answer {
        match op {
            Op::Read(path) => {
                self.check(domid, path, |perms| perms.access(domid).reads())?;
                Ok(self.nodes[path].0.clone())
            }
            Op::Directory(path) => {
                self.check(domid, path, |perms| perms.access(domid).reads())?;
                Ok(self.children(path))
            }
            Op::GetPerms(path) => {
                self.check(domid, path, |perms| perms.access(domid).reads())?;
                Ok(self.nodes[path].1.entries().flat_map(|entry| format!("{entry}\0").into_bytes()).collect())
            }
            Op::Write(path, value) => self.write(domid, path, value, false),
            Op::Mkdir(path) => self.write(domid, path, b"", true),
            Op::Rm(path) => match self.check(domid, path, |perms| perms.access(domid).writes()) {
                _ if path == "/" => Err(Errno::EINVAL),
                Ok(()) => {
                    let below = format!("{path}/");
                    self.nodes.retain(|other, _| other != path && !other.starts_with(&below));
                    Ok(b"OK\0".to_vec())
                }
                Err(Errno::ENOENT) if self.nodes.contains_key(path::parent(path).unwrap()) => Ok(b"OK\0".to_vec()),
                Err(errno) => Err(errno),
            },
            Op::SetPerms(path, perms) => {
                self.check(domid, path, |perms| domid == 0 || perms.owner() == domid)?;
                let place = &mut self.nodes.get_mut(path).unwrap().1;
                if domid != 0 && place.owner() != perms.owner() {
                    return Err(Errno::EPERM);
                }
                *place = perms.clone();
                Ok(b"OK\0".to_vec())
            }
        }
    }

    fn dump(&self) -> Vec<(String, Vec<u8>, String)> {
        self.nodes.iter().map(|(path, (value, perms))| (path.clone(), value.clone(), perms.to_string())).collect()
    }
}

#[derive(Debug, Clone)]
enum Op {
    Read(String),
    Directory(String),
    GetPerms(String),
    Write(String, Vec<u8>),
    Mkdir(String),
    Rm(String),
    SetPerms(String, Perms),
}

impl Op {
    fn ask(&self, engine: &mut Engine, client: usize, tx_id: u32) -> Answer {
        let with_zero = |path: &str| [path.as_bytes(), b"\0"].concat();
        let (kind, payload) = match self {
            Op::Read(path) => (XsType::READ, with_zero(path)),
            Op::Directory(path) => (XsType::DIRECTORY, with_zero(path)),
            Op::GetPerms(path) => (XsType::GET_PERMS, with_zero(path)),
            Op::Write(path, value) => (XsType::WRITE, [&with_zero(path), value.as_slice()].concat()),
            Op::Mkdir(path) => (XsType::MKDIR, with_zero(path)),
            Op::Rm(path) => (XsType::RM, with_zero(path)),
            Op::SetPerms(path, perms) => {
                let entries: Vec<u8> = perms.entries().flat_map(|entry| format!("{entry}\0").into_bytes()).collect();
                (XsType::SET_PERMS, [with_zero(path), entries].concat())
            }
        };
        ask(engine, client, tx_id, kind, &payload)
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// A client asks outside transactions.
    Ask(usize, Op),
    /// A client starts a transaction, if it has none.
    Begin(usize),
    /// A client asks in its transaction.
    Within(usize, Op),
    /// A client ends its transaction.
    End(usize, bool),
}

fn paths() -> impl Strategy<Value = String> {
    let name = prop_oneof![Just("a"), Just("b"), Just("c")];
    prop_oneof![
        8 => prop::collection::vec(name, 1..4).prop_map(|names| format!("/{}", names.join("/"))),
        1 => Just("/".to_owned()),
    ]
}

fn perms() -> impl Strategy<Value = Perms> {
    let access = prop_oneof![Just(Access::None), Just(Access::Read), Just(Access::Write), Just(Access::Both)];
    prop::collection::vec((0u16..4, access), 1..4)
        .prop_map(|entries| Perms::from_entries(entries.into_iter().map(|(domid, access)| Perm::new(domid, access))).unwrap())
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => paths().prop_map(Op::Read),
        2 => paths().prop_map(Op::Directory),
        1 => paths().prop_map(Op::GetPerms),
        5 => (paths(), prop::collection::vec(any::<u8>(), 0..4)).prop_map(|(path, value)| Op::Write(path, value)),
        2 => paths().prop_map(Op::Mkdir),
        2 => paths().prop_map(Op::Rm),
        2 => (paths(), perms()).prop_map(|(path, perms)| Op::SetPerms(path, perms)),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let client = 0..4usize;
    let step = prop_oneof![
        4 => (client.clone(), ops()).prop_map(|(client, op)| Step::Ask(client, op)),
        2 => client.clone().prop_map(Step::Begin),
        6 => (client.clone(), ops()).prop_map(|(client, op)| Step::Within(client, op)),
        2 => (client, prop::bool::weighted(0.8)).prop_map(|(client, commit)| Step::End(client, commit)),
    ];
    prop::collection::vec(step, 1..120)
}

/// A transaction under way, as its client knows it.
#[derive(Debug)]
struct Open {
    id: u32,
    asked: Vec<(Op, Answer)>,
    /// Whether anything changed outside since it started.
    disturbed: bool,
}

/// The clients: two programs of domain 0, domains 1 and 2.
struct World {
    engine: Engine,
    model: Model,
    clients: [(usize, u16); 4],
    open: [Option<Open>; 4],
}

impl World {
    fn new() -> Self {
        let limits = Limits { nodes: 6, ..Limits::default() };
        let model = Model::new(limits.nodes as usize);
        let mut engine = Engine::new(limits);
        let clients = [(engine.add_client(true), 0), (engine.add_client(true), 0), (introduce(&mut engine, 1), 1), (introduce(&mut engine, 2), 2)];
        let mut world = Self { engine, model, clients, open: [None, None, None, None] };
        world.step(&Step::Ask(0, Op::SetPerms("/".to_owned(), Perms::owned(0, Access::Both))));
        world
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Ask(who, op) => {
                let (client, domid) = self.clients[*who];
                let before = self.model.clone();
                let expected = self.model.apply(domid, op);
                assert_eq!(op.ask(&mut self.engine, client, 0), expected, "{op:?} of domain {domid}");
                // A write of the same value is a change to those who look.
                if before != self.model || matches!(op, Op::Write(..) | Op::SetPerms(..) | Op::Rm(_)) {
                    self.disturb(None);
                }
            }
            Step::Begin(who) => {
                if self.open[*who].is_none() {
                    let id = begin(&mut self.engine, self.clients[*who].0);
                    self.open[*who] = Some(Open { id, asked: Vec::new(), disturbed: false });
                }
            }
            Step::Within(who, op) => {
                if let Some(open) = &mut self.open[*who] {
                    let answer = op.ask(&mut self.engine, self.clients[*who].0, open.id);
                    open.asked.push((op.clone(), answer));
                }
            }
            Step::End(who, commit) => self.end(*who, *commit),
        }
        assert_eq!(dump(&self.engine), self.model.dump());
        assert_eq!(self.engine.tree().owners(), self.engine.tree().count_owners());
    }

    fn end(&mut self, who: usize, commit: bool) {
        let Some(open) = self.open[who].take() else { return };
        let (client, domid) = self.clients[who];
        let answer = ask(&mut self.engine, client, open.id, XsType::TRANSACTION_END, if commit { b"T\0" } else { b"F\0" });
        match answer {
            Ok(_) if commit => {
                // It must look as if everything had happened at this moment.
                let max_nodes = std::mem::replace(&mut self.model.max_nodes, usize::MAX);
                for (op, told) in open.asked.iter().filter(|(_, told)| *told != Err(Errno::ENOSPC)) {
                    assert_eq!(&self.model.apply(domid, op), told, "{op:?} of domain {domid} in a transaction that was committed");
                }
                self.model.max_nodes = max_nodes;
                self.disturb(Some(who));
            }
            Ok(_) => {}
            Err(Errno::EAGAIN) => assert!(commit && open.disturbed, "a conflict without anybody to conflict with"),
            Err(Errno::ENOSPC) => assert!(commit && domid != 0 && open.disturbed),
            Err(errno) => panic!("the end of a transaction: {errno:?}"),
        }
    }

    fn disturb(&mut self, by: Option<usize>) {
        for (_, open) in self.open.iter_mut().enumerate().filter(|(who, _)| Some(*who) != by) {
            if let Some(open) = open {
                open.disturbed = true;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn engine_is_the_model(steps in steps()) {
        let mut world = World::new();
        steps.iter().for_each(|step| world.step(step));
    }

    #[test]
    fn journal_tells_everything(steps in steps(), cut in 0..120usize) {
        let mut world = World::new();
        let mut journal = Vec::new();
        let mut take = |engine: &mut Engine, anew: bool| {
            if anew {
                journal.clear();
                engine.snapshot(|piece| { journal.extend_from_slice(piece); Ok::<(), ()>(()) }).unwrap();
            } else {
                journal.extend_from_slice(engine.journal().bytes());
            }
            engine.journal().clear();
            let (again, used) = Engine::restore(Limits::default(), &journal);
            assert_eq!(used, journal.len());
            assert_eq!(dump(&again), dump(engine));
            assert_eq!(again.tree().owners(), engine.tree().owners());
            let transactions = |engine: &Engine| engine.domains().map(|(domid, domain)| {
                let client = engine.client(domain.client).unwrap();
                (domid, client.transactions.keys().copied().collect::<Vec<_>>())
            }).collect::<Vec<_>>();
            assert_eq!(transactions(&again), transactions(engine));
        };
        take(&mut world.engine, false);
        for (at, step) in steps.iter().enumerate() {
            world.step(step);
            take(&mut world.engine, at == cut);
        }
    }
}

/// Writers of different paths do not disturb each other, in whatever order they end.
#[test]
fn only_what_was_looked_at_conflicts() {
    let mut engine = Engine::default();
    let clients: Vec<usize> = (0..50).map(|_| engine.add_client(true)).collect();
    Op::Mkdir("/dir".to_owned()).ask(&mut engine, clients[0], 0).unwrap();
    let open: Vec<u32> = clients.iter().map(|client| begin(&mut engine, *client)).collect();
    for (n, (client, id)) in clients.iter().zip(&open).enumerate() {
        let write = Op::Write(format!("/dir/of-{n}/node"), b"x".to_vec());
        assert_eq!(write.ask(&mut engine, *client, *id), Ok(b"OK\0".to_vec()));
    }
    let ends: Vec<Answer> = clients.iter().zip(&open).map(|(client, id)| ask(&mut engine, *client, *id, XsType::TRANSACTION_END, b"T\0")).collect();
    assert_eq!(ends.iter().filter(|end| end.is_ok()).count(), 50, "{ends:?}");
    // A list that somebody read conflicts with a new name in it, a value does not.
    for (op, expected) in [(Op::Directory("/dir".to_owned()), Err(Errno::EAGAIN)), (Op::Read("/dir".to_owned()), Ok(b"OK\0".to_vec()))] {
        let id = begin(&mut engine, clients[0]);
        op.ask(&mut engine, clients[0], id).unwrap();
        Op::Write("/elsewhere".to_owned(), b"1".to_vec()).ask(&mut engine, clients[0], id).unwrap();
        Op::Write(format!("/dir/new-{}", expected.is_ok()), Vec::new()).ask(&mut engine, clients[1], 0).unwrap();
        assert_eq!(ask(&mut engine, clients[0], id, XsType::TRANSACTION_END, b"T\0"), expected);
    }
}
