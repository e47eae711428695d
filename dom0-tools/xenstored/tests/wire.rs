//! Requests that make no sense, from clients with and without rights: each is answered once, nothing panics, the accounting stays right,
//! quotas hold, and the journal tells the same tree.

mod common;

use common::{ask, dump, introduce};
use oxen_xenstore::XsType;
use oxen_xenstored::engine::Engine;
use oxen_xenstored::limits::Limits;
use proptest::prelude::*;

/// Payloads made of what requests are made of, in any order.
fn payloads() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        6 => prop::sample::select(vec!["/", "/a", "/a/b", "a", "a/b/c", "/local/domain/1", "/local/domain/2/x", "@releaseDomain", "@other", "//", "/a/", ""]).prop_map(|word| word.as_bytes().to_vec()),
        3 => prop::sample::select(vec!["n0", "r1", "w2", "b3", "x9", "n99999", "T", "F", "token", "0", "1", "4096", "-1", "help", "quota", "nodes", "check", "log", "off"]).prop_map(|word| word.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
        1 => (0usize..3000).prop_map(|len| [b"/".as_slice(), &vec![b'l'; len]].concat()),
    ];
    (prop::collection::vec(word, 0..4), prop::bool::weighted(0.8)).prop_map(|(words, ended)| {
        let mut payload = words.join(&0);
        payload.extend(ended.then_some(0));
        payload.truncate(4096);
        payload
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_request_is_answered(requests in prop::collection::vec((0usize..4, 0u32..26, 0u32..4, payloads()), 1..150)) {
        let limits = Limits { nodes: 5, watches: 3, transactions: 2, ..Limits::default() };
        let mut engine = Engine::new(limits.clone());
        let writer = engine.add_client(true);
        let clients = [writer, engine.add_client(false), introduce(&mut engine, 1), introduce(&mut engine, 2)];
        for home in [&b"/local/domain/1\0"[..], b"/local/domain/2\0"] {
            ask(&mut engine, writer, 0, XsType::MKDIR, home).unwrap();
        }
        ask(&mut engine, writer, 0, XsType::SET_PERMS, b"/local/domain/1\0n1\0").unwrap();
        ask(&mut engine, writer, 0, XsType::SET_PERMS, b"/local/domain/2\0b2\0").unwrap();
        let owned_at_start = [engine.tree().owned_by(1), engine.tree().owned_by(2)];
        let mut given = false;
        for (who, kind, tx_id, payload) in &requests {
            // Domains may be released on the way; their clients are gone then.
            if engine.client(clients[*who]).is_none() || (*who > 1 && engine.domains().all(|(_, domain)| domain.client != clients[*who])) {
                continue;
            }
            // What domain 0 gives a domain, or sets as quota, is not the domain's doing.
            given |= *who == 0;
            let _ = ask(&mut engine, clients[*who], *tx_id, XsType(*kind), payload);
        }
        prop_assert_eq!(engine.tree().owners(), engine.tree().count_owners());
        for (domid, at_start) in [(1, owned_at_start[0]), (2, owned_at_start[1])] {
            prop_assert!(given || engine.tree().owned_by(domid) <= limits.nodes.max(at_start));
        }
        for client in clients.iter().filter_map(|client| engine.client(*client)).filter(|client| !client.is_privileged()) {
            prop_assert!(given || client.watches.len() <= limits.watches as usize);
            prop_assert!(given || client.transactions.len() <= limits.transactions as usize);
        }
        let journal = engine.journal().bytes().to_vec();
        let (again, used) = Engine::restore(Limits::default(), &journal);
        prop_assert_eq!(used, journal.len());
        prop_assert_eq!(dump(&again), dump(&engine));
    }

    /// A journal that was damaged is read up to the damage, and no further.
    #[test]
    fn damaged_journals_do_no_harm(cut in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut engine = Engine::default();
        let client = introduce(&mut engine, 1);
        for path in ["/x/y\0value", "/x/z\0other"] {
            let writer = engine.add_client(true);
            ask(&mut engine, writer, 0, XsType::WRITE, path.as_bytes()).unwrap();
        }
        ask(&mut engine, client, 0, XsType::WATCH, b"a\0b\0").unwrap();
        let mut journal = engine.journal().bytes().to_vec();
        let at = cut.index(journal.len());
        journal[at] = byte;
        let (again, used) = Engine::restore(Limits::default(), &journal);
        prop_assert!(used <= journal.len());
        prop_assert_eq!(again.tree().owners(), again.tree().count_owners());
    }
}
