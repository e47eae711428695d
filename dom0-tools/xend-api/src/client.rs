//! A blocking client.

use crate::{BlockDevice, Host, NetworkDevice, Progress, SOCKET, Status, Vcpu};
use crate::{Code, Create, Domain, Error, Operation, Task, Version, route};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Seconds that a request for a task's news waits at the daemon.
const POLL_S: u64 = 30;
/// Seconds that the beginning of a task waits for its end: most end soon, and are done with one request.
const BEGIN_S: u64 = 1;
/// How long the daemon may take to answer, beyond what it is asked to wait.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most bytes of an answer: the log and long lists are far smaller.
const ANSWER_LIMIT: u64 = 256 << 20;
/// Header lines of an answer.
const HEADERS: usize = 32;

/// Why a request has no result.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// The daemon does not run.
    NotRunning {
        /// Its socket.
        socket: PathBuf,
        /// What connecting to it said.
        source: io::Error,
    },
    /// The connection broke or took too long.
    Connection {
        /// What was asked for.
        request: String,
        /// What happened.
        source: io::Error,
    },
    /// The answer is not one of the daemon's.
    BadAnswer {
        /// What was asked for.
        request: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The daemon refused or failed.
    Refused(Error),
}

impl Failure {
    /// What the daemon said; `None` when it said nothing.
    pub fn refusal(&self) -> Option<&Error> {
        match self {
            Self::Refused(error) => Some(error),
            _ => None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning { socket, source } => write!(
                f,
                "cannot connect to xend at {}: {source}; start it with `systemctl start xend`",
                socket.display()
            ),
            Self::Connection { request, source } => {
                write!(f, "{request}: the connection to xend failed: {source}")
            }
            Self::BadAnswer { request, reason } => {
                write!(f, "{request}: xend's answer makes no sense: {reason}")
            }
            Self::Refused(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotRunning { source, .. } | Self::Connection { source, .. } => Some(source),
            Self::BadAnswer { .. } => None,
            Self::Refused(error) => Some(error),
        }
    }
}

/// A client of the daemon. It connects for each request, so that the daemon may be restarted in between.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// Names the daemon's socket where it is not [`SOCKET`].
const SOCKET_VARIABLE: &str = "XEND_SOCKET";

impl Default for Client {
    /// A client of the daemon at the socket that `XEND_SOCKET` names, else at [`SOCKET`].
    fn default() -> Self {
        Self::new(std::env::var_os(SOCKET_VARIABLE).map_or_else(|| PathBuf::from(SOCKET), PathBuf::from))
    }
}

impl Client {
    /// A client of the daemon at `socket`.
    pub fn new(socket: impl AsRef<Path>) -> Self {
        Self {
            socket: socket.as_ref().to_owned(),
        }
    }

    /// Who answers.
    pub fn version(&self) -> Result<Version, Failure> {
        self.get(route::VERSION)
    }

    /// The host.
    pub fn host(&self) -> Result<Host, Failure> {
        self.get(route::HOST)
    }

    /// All domains, running ones by id, then the others by name.
    pub fn domains(&self) -> Result<Vec<Domain>, Failure> {
        self.get(route::DOMAINS)
    }

    /// Domains that are known and do not run, by name.
    pub fn halted(&self) -> Result<Vec<Domain>, Failure> {
        self.get(route::HALTED)
    }

    /// One domain; `which` is a name, an id or a UUID.
    pub fn domain(&self, which: &str) -> Result<Domain, Failure> {
        self.get(&route::domain(which))
    }

    /// A domain's vCPUs.
    pub fn vcpus(&self, which: &str) -> Result<Vec<Vcpu>, Failure> {
        self.get(&route::vcpus(which))
    }

    /// A domain's disks.
    pub fn blocks(&self, which: &str) -> Result<Vec<BlockDevice>, Failure> {
        self.get(&route::blocks(which))
    }

    /// A domain's network cards.
    pub fn networks(&self, which: &str) -> Result<Vec<NetworkDevice>, Failure> {
        self.get(&route::networks(which))
    }

    /// Tasks that run and the latest that ended.
    pub fn tasks(&self) -> Result<Vec<Task>, Failure> {
        self.get(route::TASKS)
    }

    /// The last `lines` lines of the daemon's log.
    pub fn log(&self, lines: usize) -> Result<String, Failure> {
        self.text(&format!("{}?lines={lines}", route::LOG))
    }

    /// Metrics in Prometheus' text format.
    pub fn metrics(&self) -> Result<String, Failure> {
        self.text(route::METRICS)
    }

    /// Starts the creation of a guest; the task may have ended when this returns.
    pub fn create(&self, create: &Create) -> Result<Task, Failure> {
        self.post(&format!("{}?wait={BEGIN_S}", route::DOMAINS), create)
    }

    /// Starts an operation on a domain; the task may have ended when this returns.
    pub fn operate(&self, which: &str, operation: &Operation) -> Result<Task, Failure> {
        self.post(&format!("{}?wait={BEGIN_S}", route::operations(which)), operation)
    }

    /// Waits until a task has ended; `watch` sees all its progress. A task that failed is a [`Failure::Refused`].
    pub fn wait(
        &self,
        mut task: Task,
        mut watch: impl FnMut(&Progress),
    ) -> Result<crate::Outcome, Failure> {
        loop {
            match task.status {
                Status::Running { progress } => watch(&progress),
                Status::Done { outcome } => return Ok(*outcome),
                Status::Failed { error } => return Err(Failure::Refused(error)),
            }
            let news = format!(
                "{}?after={}&wait={POLL_S}",
                route::task(task.id),
                task.revision
            );
            task = self.get(&news)?;
        }
    }

    /// Does `operation` and waits for its end.
    pub fn run(&self, which: &str, operation: &Operation) -> Result<crate::Outcome, Failure> {
        self.wait(self.operate(which, operation)?, |_| ())
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let request = format!("GET {path}");
        parse(&request, &self.exchange(&request, None)?)
    }

    fn text(&self, path: &str) -> Result<String, Failure> {
        let request = format!("GET {path}");
        let body = self.exchange(&request, None)?;
        String::from_utf8(body).map_err(|error| Failure::BadAnswer {
            request,
            reason: error.to_string(),
        })
    }

    fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        let request = format!("POST {path}");
        let body = serde_json::to_vec(body).map_err(|error| Failure::BadAnswer {
            request: request.clone(),
            reason: format!("the request has no JSON form: {error}"),
        })?;
        parse(&request, &self.exchange(&request, Some(&body))?)
    }

    /// Makes a request; the body of a good answer.
    fn exchange(&self, request: &str, body: Option<&[u8]>) -> Result<Vec<u8>, Failure> {
        let mut stream =
            UnixStream::connect(&self.socket).map_err(|source| Failure::NotRunning {
                socket: self.socket.clone(),
                source,
            })?;
        let answer = talk(&mut stream, request, body).map_err(|source| Failure::Connection {
            request: request.to_owned(),
            source,
        })?;
        let (status, body) = split(&answer).map_err(|reason| Failure::BadAnswer {
            request: request.to_owned(),
            reason,
        })?;
        if (200..300).contains(&status) {
            return Ok(body.to_vec());
        }
        Err(match serde_json::from_slice::<Error>(body) {
            Ok(error) => Failure::Refused(error),
            Err(_) => Failure::Refused(Error::new(
                Code::Internal,
                format!(
                    "{request}: status {status}: {}",
                    String::from_utf8_lossy(body)
                ),
            )),
        })
    }
}

/// Sends a request and reads until the daemon closes the connection.
fn talk(stream: &mut UnixStream, request: &str, body: Option<&[u8]>) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(PATIENCE + Duration::from_secs(POLL_S)))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut message = format!("{request} HTTP/1.1\r\nhost: xend\r\nconnection: close\r\n");
    if let Some(body) = body {
        message.push_str(&format!(
            "content-type: application/json\r\ncontent-length: {}\r\n",
            body.len()
        ));
    }
    message.push_str("\r\n");
    stream.write_all(message.as_bytes())?;
    stream.write_all(body.unwrap_or_default())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_LIMIT).read_to_end(&mut answer)?;
    Ok(answer)
}

/// The status and the body of an answer.
fn split(answer: &[u8]) -> Result<(u16, &[u8]), String> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(answer) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Err("it ends too early".to_owned()),
        Err(error) => return Err(error.to_string()),
    };
    let status = response.code.unwrap_or_default();
    let body = answer.get(length..).unwrap_or_default();
    let announced = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| {
            std::str::from_utf8(header.value)
                .ok()?
                .parse::<usize>()
                .ok()
        })
        .ok_or("it does not say its length")?;
    match body.get(..announced) {
        Some(body) => Ok((status, body)),
        None => Err(format!("it ends after {} of {announced} bytes", body.len())),
    }
}

fn parse<T: DeserializeOwned>(request: &str, body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| Failure::BadAnswer {
        request: request.to_owned(),
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_split() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]";
        assert_eq!(split(answer).unwrap(), (200, b"[]".as_slice()));
    }

    #[test]
    fn a_cut_answer_is_refused() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n[]";
        assert_eq!(split(answer).unwrap_err(), "it ends after 2 of 3 bytes");
        assert_eq!(
            split(b"HTTP/1.1 200 OK\r\n").unwrap_err(),
            "it ends too early"
        );
    }

    #[test]
    fn a_daemon_that_does_not_run_is_named() {
        let failure = Client::new("/nonexistent/xend.sock").version().unwrap_err();
        assert!(failure.to_string().contains("/nonexistent/xend.sock"));
    }
}
