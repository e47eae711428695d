//! An engine with clients, asked directly.
#![allow(dead_code, reason = "every test program uses its own part")]

use oxen_xenstore::wire::{self, Head};
use oxen_xenstore::{Errno, XsType};
use oxen_xenstored::engine::{Engine, Host};

/// Accepts every domain and connects none.
#[derive(Debug, Default)]
pub struct AnyHost;

impl Host for AnyHost {
    fn connect(&mut self, _: u16, _: u64, _: u32, _: usize) -> Result<(u32, u32), Errno> {
        Ok((0, 0))
    }

    fn rebind(&mut self, _: u16, _: u32) -> Result<(), Errno> {
        Ok(())
    }

    fn disconnect(&mut self, _: u16) {}
}

/// What a request led to.
pub type Answer = Result<Vec<u8>, Errno>;

/// Asks the engine for client `client` and returns the answer; events before it go to `events`.
pub fn ask_with_events(engine: &mut Engine, client: usize, tx_id: u32, kind: XsType, payload: &[u8], events: &mut Vec<(usize, Vec<u8>)>) -> Answer {
    let head = Head { kind, req_id: 77, tx_id, len: payload.len() as u32 };
    engine.request(client, head, payload, &mut AnyHost);
    engine.end_request();
    let mut dirty = Vec::new();
    engine.take_dirty(&mut dirty);
    let mut answer = None;
    for number in dirty {
        let Some(state) = engine.client_mut(number) else { continue };
        let waiting = state.output.waiting().to_vec();
        state.output.advance(waiting.len());
        let mut rest = waiting.as_slice();
        while let Some((head, payload)) = wire::first_message(rest).expect("the engine's messages are well-formed") {
            rest = &rest[wire::HEAD_LEN + payload.len()..];
            if head.kind == XsType::WATCH_EVENT {
                events.push((number, payload.to_vec()));
                continue;
            }
            assert_eq!((number, head.req_id, head.tx_id), (client, 77, tx_id), "an answer nobody asked for");
            let previous = answer.replace(match head.kind {
                XsType::ERROR => Err(wire::parse_error(payload).expect("errors have names")),
                answered => {
                    assert_eq!(answered, kind);
                    Ok(payload.to_vec())
                }
            });
            assert_eq!(previous, None, "two answers to one request");
        }
        assert!(rest.is_empty());
    }
    answer.expect("every request is answered")
}

/// Asks the engine and drops events.
pub fn ask(engine: &mut Engine, client: usize, tx_id: u32, kind: XsType, payload: &[u8]) -> Answer {
    ask_with_events(engine, client, tx_id, kind, payload, &mut Vec::new())
}

/// Starts a transaction.
pub fn begin(engine: &mut Engine, client: usize) -> u32 {
    let answer = ask(engine, client, 0, XsType::TRANSACTION_START, b"\0").expect("a transaction starts");
    std::str::from_utf8(&answer).unwrap().trim_end_matches('\0').parse().unwrap()
}

/// Makes a domain known and returns its client.
pub fn introduce(engine: &mut Engine, domid: u16) -> usize {
    engine.introduce_domain(domid, 1, 1, &mut AnyHost).expect("the host accepts every domain");
    engine.end_request();
    engine.domains().find(|(known, _)| *known == domid).map(|(_, domain)| domain.client).unwrap()
}

/// Every node with its value and permissions.
pub fn dump(engine: &Engine) -> Vec<(String, Vec<u8>, String)> {
    let mut all = Vec::new();
    oxen_xenstored::tree::walk("/", engine.tree().root(), |path, node| all.push((path.to_owned(), node.value().to_vec(), node.perms().to_string())));
    all
}
