//! What no client of ours sends: bytes that are no HTTP, and documents with something wrong in them. Each request is answered or its connection
//! closed, no answer is a fault of the daemon's own, it goes on serving others, and nothing of what was refused is left.

use oxen_dom0_testkit::{World, Xend};
use oxen_xend_api::{Code, Create, Error, Operation, Status, Task, route};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long a connection may stay open without an answer.
const PATIENCE: Duration = Duration::from_secs(20);

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 200, ..ProptestConfig::default() }
}

/// Sends `bytes`; returns everything that comes back until the connection ends, on which the daemon may insist when `more` cannot come.
fn exchange(xend: &Xend, bytes: &[u8], more: bool) -> Vec<u8> {
    let mut connection = UnixStream::connect(&xend.socket).unwrap();
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    // Whoever has heard enough closes the connection before everything is sent.
    let _ = connection.write_all(bytes);
    if !more {
        let _ = connection.shutdown(Shutdown::Write);
    }
    let mut answer = Vec::new();
    match connection.read_to_end(&mut answer) {
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => panic!("neither an answer nor an end: {error}"),
        _ => answer,
    }
}

/// The status of an answer, and its body.
fn parts(answer: &[u8]) -> (u16, String) {
    let text = String::from_utf8_lossy(answer).into_owned();
    let rest = text.strip_prefix("HTTP/1.1 ").or_else(|| text.strip_prefix("HTTP/1.0 "));
    let status = rest.and_then(|rest| rest.get(..3)?.parse().ok());
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    (status.unwrap_or_else(|| panic!("no answer in HTTP: {text}")), body)
}

fn post(xend: &Xend, path: &str, body: &str) -> (u16, String) {
    let head = format!("POST {path}?wait=20 HTTP/1.1\r\nHost: xend\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    parts(&exchange(xend, &[head.as_bytes(), body.as_bytes()].concat(), true))
}

/// What requests are made of, in any order and quantity.
fn requests() -> impl Strategy<Value = Vec<u8>> {
    let words = [
        "GET ", "POST ", "BREW ", "/v1/version", "/v1/domains", "/v1/domains/0/operations", "/v1/domains/%ff%00", "/v1/tasks/18446744073709551616", "/v1/log?lines=-1", "/v1/log?lines=99999999999",
        "/../../etc/passwd", "*", " HTTP/1.1\r\n", " HTTP/1.0\r\n", " HTTP/9.9\r\n", "Host: xend\r\n", "Content-Length: 7\r\n", "Content-Length: 99999999999999999999\r\n", "Content-Length: -1\r\n",
        "Transfer-Encoding: chunked\r\n", "Expect: 100-continue\r\n", "Upgrade: websocket\r\nConnection: upgrade\r\n", "Connection: close\r\n", "\r\n", "\r\n\r\n", "ffffffffffffffff\r\n", "5\r\nhello\r\n", "0\r\n\r\n",
        "{\"operation\":\"destroy\"}", "{\"config\":{}}", "[", "null", ": \r\n", "\0", "\n",
    ];
    let piece = prop_oneof![
        12 => prop::sample::select(words.to_vec()).prop_map(|word| word.as_bytes().to_vec()),
        2 => prop::collection::vec(any::<u8>(), 0..60),
        1 => (0usize..70_000).prop_map(|len| [b"X-Long: ".as_slice(), &vec![b'l'; len], b"\r\n"].concat()),
    ];
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

#[test]
fn bytes_that_are_no_requests() {
    let world = World::new();
    let xend = world.start();
    let run = TestRunner::new(config(1000)).run(&requests(), |bytes| {
        let answer = exchange(&xend, &bytes, false);
        if !answer.is_empty() {
            let (status, body) = parts(&answer);
            prop_assert!(status < 500, "{status} {body}");
        }
        Ok(())
    });
    run.unwrap();
    xend.client.version().unwrap();
    world.assert_nothing_left("bytes");
}

/// How a part of a document is spoiled.
#[derive(Clone, Debug)]
enum Damage {
    Replace(Value),
    Remove,
    Add(String, Value),
}

fn values() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop::sample::select(vec![0_i64, -1, 1, 7, 1 << 31, 1 << 40, i64::MIN, i64::MAX]).prop_map(Value::from),
        Just(json!(u64::MAX)),
        Just(json!(0.5)),
        prop::sample::select(vec!["", "x", "web", "0", "..", "a/b", "a\nb", "\u{0}", "\u{1b}[31m", "é", "/nonexistent", "destroy", "00000000-0000-0000-0000-000000000000", "all", "0-99999999", "^0", "-1"])
            .prop_map(Value::from),
        (0usize..5000).prop_map(|len| Value::from("l".repeat(len))),
        Just(json!([])),
        Just(json!({})),
        Just(json!([[[[{"a": [null]}]]]])),
    ]
}

fn damage() -> impl Strategy<Value = (usize, Damage)> {
    let kind = prop_oneof![
        6 => values().prop_map(Damage::Replace),
        2 => Just(Damage::Remove),
        1 => ("[a-z_]{1,8}", values()).prop_map(|(key, value)| Damage::Add(key, value)),
    ];
    (any::<usize>(), kind)
}

/// The paths to all parts of a document below its root.
fn places(value: &Value, here: &str, out: &mut Vec<String>) {
    let below: Vec<(String, &Value)> = match value {
        Value::Object(map) => map.iter().map(|(key, value)| (key.replace('~', "~0").replace('/', "~1"), value)).collect(),
        Value::Array(list) => list.iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect(),
        _ => Vec::new(),
    };
    for (key, value) in below {
        let place = format!("{here}/{key}");
        places(value, &place, out);
        out.push(place);
    }
}

fn spoil(document: &mut Value, which: usize, damage: &Damage) {
    let mut all = Vec::new();
    places(document, "", &mut all);
    if all.is_empty() {
        return;
    }
    let place = &all[which % all.len()];
    let (parent, key) = place.rsplit_once('/').unwrap();
    match damage {
        Damage::Replace(value) => *document.pointer_mut(place).unwrap() = value.clone(),
        Damage::Remove => match document.pointer_mut(parent).unwrap() {
            Value::Object(map) => _ = map.remove(&key.replace("~1", "/").replace("~0", "~")),
            Value::Array(list) => _ = list.remove(key.parse().unwrap()),
            _ => {}
        },
        Damage::Add(key, value) => {
            if let Some(Value::Object(map)) = document.pointer_mut(parent) {
                map.insert(key.clone(), value.clone());
            }
        }
    }
}

/// Every answer is a task or an error that is not the daemon's own.
fn check(status: u16, body: &str, sent: &Value) -> Result<(), TestCaseError> {
    let error: Error = match serde_json::from_str::<Task>(body) {
        Ok(Task { status: Status::Failed { error }, .. }) => error,
        Ok(task) => {
            prop_assert!(task.ended(), "{task:?}; sent {sent}");
            return Ok(());
        }
        Err(_) => serde_json::from_str(body).map_err(|error| TestCaseError::fail(format!("{status} {body}: {error}; sent {sent}")))?,
    };
    prop_assert!(!matches!(error.code, Code::Internal) && !error.message.is_empty() && !error.message.contains('\n'), "{status} {error:?}; sent {sent}");
    Ok(())
}

fn end_all(xend: &Xend) {
    for domain in xend.client.domains().unwrap().into_iter().filter(|domain| domain.domid != Some(0)) {
        let which = domain.domid.map_or(domain.name.clone(), |domid| domid.to_string());
        let _ = post(xend, &route::operations(&which), r#"{"operation":"destroy"}"#);
    }
    for domain in xend.client.halted().unwrap() {
        let which = domain.uuid;
        let _ = post(xend, &route::operations(&which), r#"{"operation":"delete"}"#);
    }
}

#[test]
fn creations_with_something_wrong() {
    let world = World::new();
    let xend = world.start();
    let create = Create { config: Box::new(world.guest_with_devices("web")), paused: false, managed: false, start: true };
    let document = serde_json::to_value(&create).unwrap();
    let run = TestRunner::new(config(1000)).run(&prop::collection::vec(damage(), 1..4), |damages| {
        let mut sent = document.clone();
        damages.iter().for_each(|(which, damage)| spoil(&mut sent, *which, damage));
        let (status, body) = post(&xend, route::DOMAINS, &sent.to_string());
        let result = check(status, &body, &sent);
        end_all(&xend);
        result
    });
    run.unwrap();
    xend.client.version().unwrap();
    world.assert_nothing_left("creations");
}

#[test]
fn operations_with_something_wrong() {
    let world = World::new();
    let xend = world.start();
    let operations = [
        json!({"operation": "start", "paused": true}),
        json!({"operation": "pause"}),
        json!({"operation": "unpause"}),
        json!({"operation": "rename", "name": "other"}),
        json!({"operation": "mem-set", "target_kib": 8192}),
        json!({"operation": "mem-max", "max_kib": 8192}),
        json!({"operation": "vcpu-set", "vcpus": 1}),
        json!({"operation": "vcpu-pin", "vcpu": 0, "hard": "0", "soft": "1"}),
        json!({"operation": "sched-credit", "weight": 100, "cap": 50}),
        json!({"operation": "block-attach", "disk": serde_json::to_value(world.guest_with_devices("more").disks.first()).unwrap()}),
        json!({"operation": "block-detach", "device": "xvda", "force": true}),
        json!({"operation": "network-attach", "vif": {"bridge": "xenbr0"}}),
        json!({"operation": "network-detach", "device": "0", "force": true}),
        json!({"operation": "sysrq", "key": "h"}),
    ];
    let guest = world.guest_with_devices("web");
    let run = TestRunner::new(config(1000)).run(&(prop::sample::select(operations.to_vec()), prop::collection::vec(damage(), 1..3)), |(operation, damages)| {
        if xend.client.domain("web").is_err() {
            end_all(&xend);
            xend.create(&guest).unwrap();
        }
        let mut sent = operation;
        damages.iter().for_each(|(which, damage)| spoil(&mut sent, *which, damage));
        // What waits for the guest's answer would wait long: this one has no kernel.
        prop_assume!(serde_json::from_value::<Operation>(sent.clone()).map_or(true, |it| !matches!(it, Operation::Shutdown { .. } | Operation::Reboot { .. } | Operation::DumpCore { .. })));
        let (status, body) = post(&xend, &route::operations("web"), &sent.to_string());
        check(status, &body, &sent)
    });
    run.unwrap();
    end_all(&xend);
    xend.client.version().unwrap();
    world.assert_nothing_left("operations");
}
